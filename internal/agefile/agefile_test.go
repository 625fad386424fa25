package agefile_test

import (
	"bytes"
	"compress/zlib"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"

	agetest "c2sp.org/CCTV/age"
	library "filippo.io/age"

	"example.com/iad/internal/agefile"
)

// sizes are those around the ends of the chunks.
var sizes = []int{0, 1, 1000, 64<<10 - 1, 64 << 10, 64<<10 + 1, 128 << 10, 200_000}

func newIdentity(t *testing.T) (agefile.Identity, *library.X25519Identity) {
	t.Helper()
	theirs, err := library.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	ids, err := agefile.ReadIdentities([]byte("# comment\n\n" + theirs.String() + "\n"))
	if err != nil || len(ids) != 1 {
		t.Fatal(len(ids), err)
	}
	if got, want := ids[0].Recipient().String(), theirs.Recipient().String(); got != want {
		t.Fatalf("recipient %s, age has %s", got, want)
	}
	return ids[0], theirs
}

func data(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func TestAgeReadsOurFiles(t *testing.T) {
	one, age1 := newIdentity(t)
	two, age2 := newIdentity(t)
	for _, size := range sizes {
		plain := data(size)
		sealed, err := agefile.Encrypt(plain, one.Recipient(), two.Recipient())
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range []library.Identity{age1, age2} {
			r, err := library.Decrypt(bytes.NewReader(sealed), id)
			if err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%d bytes: got %d, %v", size, len(got), err)
			}
		}
	}
}

func TestReadsFilesOfAge(t *testing.T) {
	id, theirs := newIdentity(t)
	_, other := newIdentity(t)
	for _, size := range sizes {
		plain := data(size)
		var sealed bytes.Buffer
		w, err := library.Encrypt(&sealed, other.Recipient(), theirs.Recipient())
		if err == nil {
			_, err = w.Write(plain)
		}
		if err := errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		if got, err := agefile.Decrypt(sealed.Bytes(), id); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes: got %d, %v", size, len(got), err)
		}
	}
}

func TestKeysSurviveStorage(t *testing.T) {
	id, err := agefile.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	again, err := agefile.IdentityOf(id.Bytes())
	if err != nil || again.Recipient() != id.Recipient() {
		t.Fatalf("%s, stored %s, %v", id.Recipient(), again.Recipient(), err)
	}
	if r, err := agefile.ParseRecipient(id.Recipient().String()); err != nil || r != id.Recipient() {
		t.Errorf("%s read as %s, %v", id.Recipient(), r, err)
	}
}

func TestWrongKeys(t *testing.T) {
	id, _ := newIdentity(t)
	good := id.Recipient().String()
	for _, bad := range []string{"", "age1", good[:61], good + "q", strings.ToUpper(good), "bge1" + good[4:], good[:30] + "b" + good[31:], good[:40] + swapped(good[40]) + good[41:], "AGE-SECRET-KEY-1" + good[4:]} {
		if r, err := agefile.ParseRecipient(bad); err == nil {
			t.Errorf("%q was read as %s", bad, r)
		}
	}
	for _, bad := range []string{"", "# nothing\n", good, "AGE-SECRET-KEY-1QQQQ"} {
		if _, err := agefile.ReadIdentities([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
	if _, err := agefile.Encrypt([]byte("x")); err == nil {
		t.Error("encrypted to nobody")
	}
}

func swapped(digit byte) string {
	if digit == 'q' {
		return "p"
	}
	return "q"
}

func TestOtherKey(t *testing.T) {
	id, _ := newIdentity(t)
	other, _ := newIdentity(t)
	sealed, err := agefile.Encrypt([]byte("secret"), id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := agefile.Decrypt(sealed, other); !errors.Is(err, agefile.ErrNotForKey) {
		t.Errorf("with another key: %v", err)
	}
	if _, err := agefile.Decrypt(sealed); !errors.Is(err, agefile.ErrNotForKey) {
		t.Errorf("without keys: %v", err)
	}
	if got, err := agefile.Decrypt(sealed, other, id); err != nil || string(got) != "secret" {
		t.Errorf("with both keys: %q, %v", got, err)
	}
}

// TestDamaged changes and removes bytes everywhere: all of it is noticed.
func TestDamaged(t *testing.T) {
	id, _ := newIdentity(t)
	plain := data(70_000)
	sealed, err := agefile.Encrypt(plain, id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	step := 1
	for at := 0; at < len(sealed); at += step {
		if at > 400 {
			step = 997
		}
		changed := bytes.Clone(sealed)
		changed[at] ^= 1
		if _, err := agefile.Decrypt(changed, id); !errors.Is(err, agefile.ErrFormat) && !errors.Is(err, agefile.ErrNotForKey) {
			t.Fatalf("byte %d changed: %v", at, err)
		}
		if _, err := agefile.Decrypt(sealed[:at], id); !errors.Is(err, agefile.ErrFormat) {
			t.Fatalf("%d bytes: %v", at, err)
		}
	}
	if _, err := agefile.Decrypt(append(bytes.Clone(sealed), 0), id); !errors.Is(err, agefile.ErrFormat) {
		t.Errorf("a byte too many: %v", err)
	}
	header := bytes.Index(sealed, []byte("\n---"))
	swapped := append(append([]byte{}, sealed[:header+66]...), sealed[len(sealed)-5000:]...)
	if _, err := agefile.Decrypt(swapped, id); !errors.Is(err, agefile.ErrFormat) {
		t.Errorf("the end where the beginning was: %v", err)
	}
}

// TestPublishedVectors decrypts the test vectors of the format's authors. Those for
// passphrases and for armor are about parts of the format that devices do not have.
func TestPublishedVectors(t *testing.T) {
	seen := 0
	err := fs.WalkDir(agetest.Vectors, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(agetest.Vectors, name)
		if err != nil {
			return err
		}
		head, file, _ := bytes.Cut(text, []byte("\n\n"))
		fields := map[string]string{}
		var ids []agefile.Identity
		for line := range strings.Lines(string(head)) {
			key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			if key == "identity" {
				list, err := agefile.ReadIdentities([]byte(value))
				if err != nil {
					return nil // a key of another kind
				}
				ids = append(ids, list...)
			}
			fields[key] = value
		}
		if fields["armored"] == "yes" || fields["passphrase"] != "" || len(ids) == 0 {
			return nil
		}
		if fields["compressed"] == "zlib" {
			r, err := zlib.NewReader(bytes.NewReader(file))
			if err != nil {
				return err
			}
			if file, err = io.ReadAll(r); err != nil {
				return err
			}
		}
		seen++
		plain, err := agefile.Decrypt(file, ids...)
		sum := sha256.Sum256(plain)
		switch want := fields["expect"]; {
		case want == "success" && (err != nil || hex.EncodeToString(sum[:]) != fields["payload"]):
			t.Errorf("%s: %d bytes, %v", name, len(plain), err)
		case want == "no match" && !errors.Is(err, agefile.ErrNotForKey):
			t.Errorf("%s: %v, want that no key fits", name, err)
		case want != "success" && err == nil:
			t.Errorf("%s was read; want: %s (%s)", name, want, fields["comment"])
		}
		return nil
	})
	if err != nil || seen < 50 {
		t.Fatalf("%d vectors, %v", seen, err)
	}
}

func FuzzDecrypt(f *testing.F) {
	id, err := agefile.IdentityOf(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		f.Fatal(err)
	}
	for _, plain := range []string{"", "iad-config userData 1\n"} {
		sealed, err := agefile.Encrypt([]byte(plain), id.Recipient())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(sealed)
	}
	f.Add([]byte("age-encryption.org/v1\n-> X25519 \n\n--- \n"))
	f.Fuzz(func(t *testing.T, sealed []byte) {
		plain, err := agefile.Decrypt(sealed, id)
		if (err == nil) == (plain == nil) || len(plain) > len(sealed) {
			t.Fatalf("%d bytes became %d, %v", len(sealed), len(plain), err)
		}
	})
}

func FuzzKeys(f *testing.F) {
	f.Add("age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq")
	f.Fuzz(func(t *testing.T, text string) {
		if r, err := agefile.ParseRecipient(text); err == nil && r.String() != text {
			t.Fatalf("%q became %s", text, r)
		}
		_, ours := agefile.ParseRecipient(text)
		_, theirs := library.ParseX25519Recipient(text)
		if (ours == nil) && theirs != nil {
			t.Fatalf("%q is read, and age does not: %v", text, theirs)
		}
		_, _ = agefile.ReadIdentities([]byte(text))
	})
}
