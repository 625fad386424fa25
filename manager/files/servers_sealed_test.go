package files_test

import (
	"io"
	"strings"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/internal/iadtest"
	"example.com/iad/manager/device"
)

// Once a backup was judged nobody writes into its directory: not by TFTP, where anybody can
// ask, not by an upload that began before, and not after the upgrade was resumed.
func TestJudgedBackupIsClosed(t *testing.T) {
	s, files := iadtest.StartServers(t, nil)
	dirs := make(map[device.Protocol]string)
	for _, p := range []device.Protocol{device.TFTP, device.FTP} {
		session, client := open(t, s, p, "A")
		dir, _, err := session.NewBackup(iadtest.OneKind)
		if err != nil {
			t.Fatal(err)
		}
		dirs[p] = dir
		name := dir + "/userData.cfg"
		if err := client.put(name, []byte("data")); err != nil {
			t.Fatal(err)
		}
		if c, ok := client.(ftpClient); ok {
			if err := c.put(dir+"/draft", []byte("x")); err != nil {
				t.Fatal(err)
			}
			r, w := io.Pipe()
			done := make(chan error, 1)
			go func() { done <- c.Stor(name, r) }()
			if _, err := w.Write([]byte("stranger")); err != nil { // taken: the upload has begun
				t.Fatal(err)
			}
			session.Seal()
			w.Close()
			if err := <-done; err == nil {
				t.Error("an upload in progress was taken")
			}
			if c.Rename(dir+"/draft", name) == nil || c.Delete(dir+"/draft") == nil || c.Append(name, strings.NewReader("x")) == nil {
				t.Error("changed after the verdict")
			}
		}
		session.Seal()
		if err := client.put(name, []byte("stranger")); err == nil {
			t.Errorf("%s: written after the verdict", p)
		}
		session.Offer(dir)
		if got, err := client.get(name); err != nil || string(got) != "data" {
			t.Errorf("%s: offered: %q, %v", p, got, err)
		}
		if err := client.put(name, []byte("stranger")); err == nil {
			t.Errorf("%s: written while it is offered", p)
		}
		if got, err := afero.ReadFile(files, name); err != nil || string(got) != "data" {
			t.Errorf("%s: %q, %v", p, got, err)
		}
	}
}
