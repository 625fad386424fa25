package packages

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// alpineVersion is what Alpine accepts as a version, without a release number.
var alpineVersion = regexp.MustCompile(`^[0-9]+(\.[0-9]+)*(_(alpha|beta|pre|rc|cvs|svn|git|hg|p)[0-9]*)*$`)

// member reads a member of a gzip file and returns what it contains and its own bytes.
func member(t *testing.T, data []byte) (content, compressed, rest []byte) {
	t.Helper()
	r := bytes.NewReader(data)
	b := bufio.NewReaderSize(r, 16)
	zr, err := gzip.NewReader(b)
	if err != nil {
		t.Fatal(err)
	}
	zr.Multistream(false)
	if content, err = io.ReadAll(zr); err != nil {
		t.Fatal(err)
	}
	end := len(data) - r.Len() - b.Buffered()
	return content, data[:end], data[end:]
}

// TestApk compares packages for Alpine with what apk verifies when it installs one: the digests of the data and of each file.
func TestApk(t *testing.T) {
	dir := os.Getenv("IAD_PACKAGES")
	if dir == "" {
		t.Skip("make packages-test runs this test")
	}
	apks, err := filepath.Glob(filepath.Join(dir, "*.apk"))
	if err != nil {
		t.Fatal(err)
	}
	if len(apks) == 0 {
		t.Skip(`no packages for Alpine: FORMATS has no "apk"`)
	}
	for _, apk := range apks {
		t.Run(filepath.Base(apk), func(t *testing.T) {
			data, err := os.ReadFile(apk)
			if err != nil {
				t.Fatal(err)
			}
			control, _, rest := member(t, data)
			files, compressed, rest := member(t, rest)
			if len(rest) != 0 {
				t.Errorf("%d bytes after the data", len(rest))
			}
			info := map[string]string{}
			tr := tar.NewReader(bytes.NewReader(control))
			if h, err := tr.Next(); err != nil || h.Name != ".PKGINFO" {
				t.Fatalf("the first file is %v, %v; want .PKGINFO", h, err)
			}
			for lines := bufio.NewScanner(tr); lines.Scan(); {
				key, value, _ := strings.Cut(lines.Text(), " = ")
				info[key] = value
			}
			if sum := sha256.Sum256(compressed); info["datahash"] != hex.EncodeToString(sum[:]) {
				t.Errorf("datahash = %s, the data have %x", info["datahash"], sum)
			}
			if !alpineVersion.MatchString(info["pkgver"]) {
				t.Errorf("pkgver = %s is not a version of Alpine", info["pkgver"])
			}
			program := 0
			for tr := tar.NewReader(bytes.NewReader(files)); ; {
				h, err := tr.Next()
				if errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
				if h.Uid != 0 || h.Gid != 0 {
					t.Errorf("%s is owned by %d:%d", h.Name, h.Uid, h.Gid)
				}
				if h.Typeflag != tar.TypeReg {
					continue
				}
				sum := sha1.New()
				if _, err := io.Copy(sum, tr); err != nil {
					t.Fatal(err)
				}
				if got := h.PAXRecords["APK-TOOLS.checksum.SHA1"]; got != hex.EncodeToString(sum.Sum(nil)) {
					t.Errorf("%s: the checksum is %s, want %x", h.Name, got, sum.Sum(nil))
				}
				if h.Name == "usr/bin/"+info["pkgname"] && h.Mode == 0o755 {
					program++
				}
			}
			if program != 1 {
				t.Errorf("%d files usr/bin/%s that can be executed, want 1", program, info["pkgname"])
			}
		})
	}
}
