package agefile_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"example.com/iad/internal/agefile"
	"example.com/iad/internal/peers"
)

// run runs a program in a directory and returns what it prints.
func run(t *testing.T, dir, program string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), peers.Find(t, program), args...)
	cmd.Dir = dir
	var output, errors bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &errors
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %v: %v\n%s", program, args, err, &errors)
	}
	return output.Bytes()
}

// TestProgram exchanges files with the age program of the system, in both directions.
func TestProgram(t *testing.T) {
	dir := t.TempDir()
	run(t, dir, "age-keygen", "-o", "operator.key")
	text, err := os.ReadFile(filepath.Join(dir, "operator.key"))
	if err != nil {
		t.Fatal(err)
	}
	operator, err := agefile.ReadIdentities(text)
	if err != nil {
		t.Fatal(err)
	}
	recipient := strings.TrimSpace(string(run(t, dir, "age-keygen", "-y", "operator.key")))
	if got := operator[0].Recipient().String(); got != recipient {
		t.Fatalf("recipient %s, age-keygen prints %s", got, recipient)
	}
	device, err := agefile.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range sizes {
		plain := data(size)
		sealed, err := agefile.Encrypt(plain, device.Recipient(), operator[0].Recipient())
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "ours"), sealed, 0o600)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "plain"), plain, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := run(t, dir, "age", "-d", "-i", "operator.key", "ours"); !bytes.Equal(got, plain) {
			t.Errorf("%d bytes: age reads %d", size, len(got))
		}
		theirs := run(t, dir, "age", "-r", device.Recipient().String(), "-r", recipient, "plain")
		if got, err := agefile.Decrypt(theirs, device); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes of age: %d, %v", size, len(got), err)
		}
	}
}
