package transfer_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/iad/mib"
	"example.com/iad/transfer"
)

// eachServer runs f against every real server.
func eachServer(t *testing.T, f func(t *testing.T, s realServer, r *running, root string)) {
	t.Parallel()
	for _, s := range realServers {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			root := newRoot(t)
			f(t, s, s.start(t, root), root)
		})
	}
}

func put(t testing.TB, c *transfer.Client, name string, content []byte) error {
	_, err := c.Put(testContext(t), name, bytes.NewReader(content), int64(len(content)))
	return err
}

func TestMissingFile(t *testing.T) {
	eachServer(t, func(t *testing.T, s realServer, r *running, root string) {
		c := r.client(t)
		_, _, err := fetch(testContext(t), c, "no such file")
		wantCause(t, err, mib.FailCauseFileNotFound)
		t.Log(err)
		writeFile(t, filepath.Join(root, "there"), "content")
		if got, _, err := fetch(testContext(t), c, "there"); err != nil || string(got) != "content" {
			t.Errorf("afterwards: %q, %v", got, err)
		}
	})
}

func TestNoPermission(t *testing.T) {
	eachServer(t, func(t *testing.T, s realServer, r *running, root string) {
		if err := os.WriteFile(filepath.Join(root, "closed"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		mkdir(t, root, "dir")
		c := r.client(t)
		_, _, err := fetch(testContext(t), c, "closed")
		if s.name == "atftpd" { // it does not report that there is such a file
			wantCause(t, err, mib.FailCauseFileNotFound)
		} else {
			wantCause(t, err, mib.FailCauseAccessDenied)
		}
		t.Log(err)
		err = put(t, c, "dir/new", []byte("content"))
		if s.readOnly { // dnsmasq: "unsupported request"
			wantCause(t, err, mib.FailCauseProtocolError)
		} else {
			wantCause(t, err, mib.FailCauseAccessDenied)
		}
		t.Log(err)
		if !s.readOnly {
			err = put(t, c, "nodir/new", []byte("content"))
			wantCause(t, err, mib.FailCauseAccessDenied, mib.FailCauseFileNotFound)
			t.Log(err)
		}
	})
}

func TestBadPassword(t *testing.T) {
	t.Parallel()
	for _, s := range realServers {
		if s.protocol == mib.ProtocolTftp {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			r := s.start(t, newRoot(t))
			c := r.client(t, func(s *transfer.Server, _ *transfer.Options) {
				s.User, s.Password, s.Timeout = testUser, "wrong", 20*time.Second // servers are slow to say no
			})
			_, _, err := fetch(testContext(t), c, "file")
			wantCause(t, err, mib.FailCauseAuthFailed)
			t.Log(err)
			if strings.Contains(err.Error(), "wrong") {
				t.Errorf("the password is in the error: %v", err)
			}
		})
	}
}

// TestExistingFile: a new upload replaces an old one, or says why it does not.
func TestExistingFile(t *testing.T) {
	eachServer(t, func(t *testing.T, s realServer, r *running, root string) {
		if s.readOnly {
			t.Skip("takes no uploads")
		}
		c := r.client(t)
		want := []byte("new")
		writeFile(t, filepath.Join(root, "file"), "old and longer")
		open(t, filepath.Join(root, "file"))
		if err := put(t, c, "file", want); err != nil {
			t.Fatal(err)
		}
		awaitFile(t, filepath.Join(root, "file"), want)

		writeFile(t, filepath.Join(root, "write protected"), "old")
		err := put(t, c, "write protected", want)
		if err != nil {
			wantCause(t, err, mib.FailCauseAccessDenied, mib.FailCauseRemoteFileExists)
			want = []byte("old")
		}
		t.Log(err)
		awaitFile(t, filepath.Join(root, "write protected"), want)
	})
}

func TestServerKilled(t *testing.T) {
	eachServer(t, func(t *testing.T, s realServer, r *running, root string) {
		file := writeFile(t, filepath.Join(root, "file"), "")
		if err := os.Truncate(file, 64<<20); err != nil { // all servers at once would keep the disk busy
			t.Fatal(err)
		}
		c := r.client(t, func(s *transfer.Server, _ *transfer.Options) { s.Timeout = 8 * time.Second })
		in, _, err := c.Get(testContext(t), "file", 0)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if _, err := io.CopyN(io.Discard, in, 1<<20); err != nil {
			t.Fatal(err)
		}
		r.stop()
		_, err = io.Copy(io.Discard, in)
		wantCause(t, err, mib.FailCauseConnectionLost, mib.FailCauseTransferTimeout)
		t.Log(err)
		_, _, err = c.Get(testContext(t), "file", 0)
		wantCause(t, err, mib.FailCauseServerUnreachable)
		t.Log(err)
	})
}

func TestServerKilledUpload(t *testing.T) {
	eachServer(t, func(t *testing.T, s realServer, r *running, root string) {
		if s.readOnly {
			t.Skip("takes no uploads")
		}
		c := r.client(t, soon)
		source := &hook{Reader: bytes.NewReader(make([]byte, 8<<20)), after: 1 << 20, do: r.stop}
		_, err := c.Put(testContext(t), "file", stream{source}, 8<<20)
		wantCause(t, err, mib.FailCauseConnectionLost, mib.FailCauseTransferTimeout, mib.FailCauseServerUnreachable)
		t.Log(err)
	})
}

// hook does something once so many bytes were read.
type hook struct {
	io.Reader
	after int
	do    func()
}

func (h *hook) Read(p []byte) (int, error) {
	n, err := h.Reader.Read(p[:min(len(p), 64<<10)])
	if h.after -= n; h.after <= 0 && h.do != nil {
		h.do()
		h.do = nil
	}
	return n, err
}

func TestResume(t *testing.T) {
	eachServer(t, func(t *testing.T, s realServer, r *running, root string) {
		content := testContent(3<<20, 5)
		writeFile(t, filepath.Join(root, "file"), string(content))
		c := r.client(t)
		for _, offset := range []int64{1, 1 << 20, 3<<20 - 1, 3 << 20} {
			in, size, err := c.Get(testContext(t), "file", offset)
			if s.protocol == mib.ProtocolTftp {
				if !errors.Is(err, transfer.ErrNoResume) {
					t.Errorf("offset %d: %v, want ErrNoResume", offset, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("offset %d: %v", offset, err)
			}
			got, err := io.ReadAll(in)
			in.Close()
			if err != nil || size != int64(len(content)) || !bytes.Equal(got, content[offset:]) {
				t.Errorf("offset %d: %d bytes of a file of %d, %v", offset, len(got), size, err)
			}
		}
		if s.protocol != mib.ProtocolTftp {
			if _, _, err := c.Get(testContext(t), "file", 3<<20+1); !errors.Is(err, transfer.ErrNoResume) {
				t.Errorf("offset after the end: %v, want ErrNoResume", err)
			}
		}
	})
}

func TestLargeFile(t *testing.T) {
	if testing.Short() {
		t.Skip("moves 100 MiB with each server")
	}
	const size = 100 << 20
	content := testContent(size, 9)
	sum := sha256.Sum256(content)
	for _, s := range realServers {
		t.Run(s.name, func(t *testing.T) {
			root := newRoot(t)
			r := s.start(t, root)
			c, path := r.client(t), filepath.Join(root, "file")
			begin := time.Now()
			if s.readOnly {
				if err := os.WriteFile(path, content, 0o644); err != nil {
					t.Fatal(err)
				}
			} else if err := put(t, c, "file", content); err != nil {
				t.Fatal(err)
			}
			up := time.Since(begin)
			open(t, path)
			begin = time.Now()
			if err := c.Verify(testContext(t), "file", size, sum[:]); err != nil {
				t.Fatal(err)
			}
			t.Logf("up %v, down %v", up.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond))
		})
	}
}
