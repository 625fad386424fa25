package manager_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/internal/peers"
	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

// TestExternalServerCopies: a backup on a server of somebody else is modified, given
// back and replaced like one on ours, and data of ours can be given back through it.
func TestExternalServerCopies(t *testing.T) {
	for _, p := range []device.Protocol{device.TFTP, device.FTP} {
		t.Run(p.String(), func(t *testing.T) {
			root, err := os.MkdirTemp("", "manager") // below /tmp itself: the server's user may read there
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(root) })
			list := filepath.Join(root, "iad")
			if err := errors.Join(os.Mkdir(list, 0o777), os.Chmod(list, 0o777), os.Chmod(root, 0o755)); err != nil {
				t.Fatal(err)
			}
			address := device.FileServerAddress{Protocol: p, Host: "127.0.0.1"}
			if p == device.TFTP {
				address.Port = uint16(peers.Tftpd(t, root).Port)
			} else {
				address.Port = uint16(peers.Vsftpd(t, root).Port)
			}
			l := newLab(t, labOptions{})
			image := l.image("2.0.0", 2)
			data, err := afero.ReadFile(l.images, image.Path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(list, image.FileName()), data, 0o644); err != nil {
				t.Fatal(err)
			}
			external := &files.ExternalServer{Server: address, Directory: "iad", Store: l.store}

			plan := l.plan(image)
			plan.Protocol, plan.Files = p, external
			plan.Modifier, plan.ModifyFirst = &modifier{write: func(_ int, _ string, body []byte) []byte { return append(body, "by = hand\n"...) }}, true
			result, err := manager.Upgrade(l.ctx, plan, &scripted{t: t}, l.observe)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(result.Place, address.String()) || !files.Complete(l.store, result.Directory) {
				t.Errorf("the backup is in %q, complete %v", result.Place, files.Complete(l.store, result.Directory))
			}
			sent := uploaded(t, list, "by = hand")
			if len(sent) != len(files.ConfigKinds) {
				t.Errorf("modified files on the server: %v", sent)
			}

			// What the server still holds is not sent again.
			backup, err := files.ReadBackup(l.store, result.Directory)
			if err != nil {
				t.Fatal(err)
			}
			before := uploaded(t, list, "iad-config")
			plan.Image, plan.ModifyFirst = nil, false
			if _, err := manager.Recover(l.ctx, plan, result.Directory, backup, &scripted{t: t}, l.observe); err != nil {
				t.Fatal(err)
			}
			if after := uploaded(t, list, "iad-config"); len(after) != len(before) {
				t.Errorf("before the recovery %v, after it %v", before, after)
			}

			// A file that was changed on the server is replaced by the copy.
			for _, f := range backup {
				if f.Kind == mib.FileTypeUserData {
					if err := os.WriteFile(filepath.Join(list, f.Name), []byte("iad-config userData 1\nname = somebody else\n"), 0o666); err != nil {
						t.Fatal(err)
					}
				}
			}
			if _, err := manager.Recover(l.ctx, plan, result.Directory, backup, &scripted{t: t}, l.observe); err != nil {
				t.Fatal(err)
			}
			if after := uploaded(t, list, "iad-config"); len(after) != len(before)+1 {
				t.Errorf("before the recovery %v, after it %v", before, after)
			}
		})
	}
}

// uploaded are the names of the configuration files below dir that contain a text.
func uploaded(t *testing.T, dir, text string) (names []string) {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "*.cfg"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range list {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), text) {
			names = append(names, filepath.Base(name))
		}
	}
	return names
}

// TestExternalServerReadOnly: a server that takes nothing from this machine is named,
// with what can be done.
func TestExternalServerReadOnly(t *testing.T) {
	l := newLab(t, labOptions{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := device.FileServerAddress{Protocol: device.FTP, Host: "127.0.0.1", Port: uint16(listener.Addr().(*net.TCPAddr).Port)}
	listener.Close() // nobody is there
	directory := "backup/TEST-0001/20260102T030405Z-1"
	for kind, data := range configuration(1) {
		if err := afero.WriteFile(l.store, directory+"/"+kind.String()+".cfg", data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	backup, err := files.ReadBackup(l.store, directory)
	if err != nil {
		t.Fatal(err)
	}
	plan := l.plan(nil)
	plan.Protocol, plan.Files = device.FTP, &files.ExternalServer{Server: address, Store: l.store}
	_, err = manager.Recover(l.ctx, plan, directory, backup, manager.Automatic{}, l.observe)
	var failed *manager.Failure
	if !errors.As(err, &failed) || failed.Advice != mib.RetryAdviceFixFirst || !strings.Contains(failed.Text, "recover without --server") {
		t.Errorf("%v", err)
	}
}
