package files

import (
	"bytes"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/internal/agefile"
)

// FuzzCleanName checks that no name leaves the store.
func FuzzCleanName(f *testing.F) {
	for _, seed := range []string{"", "/", "a", "../a", "a/../../b", "a//b/./c", ".hidden", "a\\..\\b", "a\x00b", "a\r\nDELE b", "ä/ö", "\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		clean, err := cleanName(name)
		if err != nil {
			return
		}
		joined := path.Join("/store", clean)
		if joined != "/store" && !strings.HasPrefix(joined, "/store/") || strings.HasPrefix(path.Base(joined), ".") {
			t.Errorf("%q becomes %q", name, clean)
		}
	})
}

// FuzzConfigHeader checks that what is accepted is what the first line says.
func FuzzConfigHeader(f *testing.F) {
	for _, seed := range []string{"", "iad-config userData 1\n", "iad-config software 1\n", "iad-config otherData 4294967296\n", "iad-config\tportData  2\r\nx"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, head []byte) {
		kind, _, err := configHeader(head)
		if err == nil && !strings.Contains(string(head), kind.String()) {
			t.Errorf("%q is of kind %s", head, kind)
		}
	})
}

// FuzzEnvelope: what stands beside encrypted files gives them a kind, or the backup is refused;
// without it, a key reads what they are. No file is of two kinds, and none gets into a backup
// that is not an age file.
func FuzzEnvelope(f *testing.F) {
	key, err := agefile.NewIdentity()
	if err != nil {
		f.Fatal(err)
	}
	sealed, err := agefile.Encrypt([]byte("iad-config userData 1\nline.1 = 1\n"), key.Recipient())
	if err != nil {
		f.Fatal(err)
	}
	for _, text := range []string{
		`{"recipient":"age1x","files":[{"name":"userData.cfg","kind":"userData","format":1}]}`,
		`{"files":[{"name":"../userData.cfg","kind":"software","format":4294967295}]}`, `{}`, `[`, ``,
	} {
		f.Add([]byte(text), sealed)
	}
	f.Add([]byte(nil), sealed[:len(sealed)-1])
	f.Fuzz(func(t *testing.T, envelope, file []byte) {
		store := afero.NewMemMapFs()
		if err := afero.WriteFile(store, "b/userData.cfg", file, 0o600); err != nil {
			t.Fatal(err)
		}
		if len(envelope) > 0 {
			if err := afero.WriteFile(store, "b/"+envelopeFile, envelope, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		list, err := Keys{key}.ReadBackup(store, "b")
		if err == nil && (len(list) != 1 || !slices.Contains(ConfigKinds, list[0].Kind) || list[0].Encrypted != agefile.Is(file)) {
			t.Errorf("%+v", list)
		}
		contents, err := Keys{key}.Open(store, "b")
		if err == nil && agefile.Is(file) && !bytes.Equal(contents[list[0].Kind], []byte("iad-config userData 1\nline.1 = 1\n")) {
			t.Errorf("%q", contents)
		}
	})
}
