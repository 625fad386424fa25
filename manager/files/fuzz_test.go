package files

import (
	"path"
	"strings"
	"testing"
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
