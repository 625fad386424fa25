package auth

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Cost of a hash, as OWASP recommends for argon2id: 19 MiB, 2 passes, 1 lane.
const (
	hashMemory  = 19 * 1024 // KiB
	hashTime    = 2
	hashThreads = 1
	hashLength  = 32
)

// Limits of passwords, in bytes.
const (
	minPassword = 12
	maxPassword = 256
)

// checkPassword reports why a password is not accepted. It never contains the password.
func checkPassword(user, password string) error {
	switch {
	case len(password) < minPassword:
		return fmt.Errorf("must have at least %d characters", minPassword)
	case len(password) > maxPassword:
		return fmt.Errorf("must have at most %d characters", maxPassword)
	case strings.Contains(strings.ToLower(password), strings.ToLower(user)):
		return fmt.Errorf("must not contain the name of the user")
	}
	return nil
}

// hashPassword returns a hash with its parameters, in the PHC string format.
func hashPassword(password string) string {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	hash := argon2.IDKey([]byte(password), salt, hashTime, hashMemory, hashThreads, hashLength)
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, hashMemory, hashTime, hashThreads,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(hash))
}

// matchesPassword reports whether a hash is that of the password. What is not a hash
// matches no password.
func matchesPassword(stored, password string) bool {
	part := strings.Split(stored, "$")
	if len(part) != 6 || part[1] != "argon2id" {
		return false
	}
	var version int
	var memory, passes uint32
	var threads uint8
	if _, err := fmt.Sscanf(part[2], "v=%d", &version); err != nil || version != argon2.Version {
		return false
	}
	if _, err := fmt.Sscanf(part[3], "m=%d,t=%d,p=%d", &memory, &passes, &threads); err != nil || passes < 1 || threads < 1 || memory > 1<<20 || passes > 100 {
		return false
	}
	salt, err := base64.RawStdEncoding.DecodeString(part[4])
	if err != nil {
		return false
	}
	want, err := base64.RawStdEncoding.DecodeString(part[5])
	if err != nil || len(want) < 16 || len(want) > 64 {
		return false
	}
	got := argon2.IDKey([]byte(password), salt, passes, memory, threads, uint32(len(want)))
	return subtle.ConstantTimeCompare(got, want) == 1
}
