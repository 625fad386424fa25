package manager_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/internal/agefile"
	"example.com/iad/manager"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

func newOperator(t *testing.T) agefile.Identity {
	t.Helper()
	id, err := agefile.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// encryptingTo has the device of a lab encrypt its backups to an operator.
func encryptingTo(operator agefile.Identity) func(*lab, *sim.Config) {
	return func(_ *lab, c *sim.Config) { c.Encryption.Recipients = []agefile.Recipient{operator.Recipient()} }
}

// userData are the user data in force, which the device sends encrypted.
func (l *lab) userData(operator agefile.Identity) string {
	l.t.Helper()
	plain, err := agefile.Decrypt([]byte(l.inForce()), operator)
	if err != nil {
		l.t.Fatal(err)
	}
	return string(plain)
}

// secret is in all configuration data of the lab.
const secret = "of the test"

// checkNoPlainText looks for settings in the store that are not encrypted.
func (l *lab) checkNoPlainText() {
	l.t.Helper()
	err := afero.Walk(l.store, ".", func(name string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		data, err := afero.ReadFile(l.store, name)
		if bytes.Contains(data, []byte(secret)) {
			l.t.Errorf("%s is plain text", name)
		}
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

// A device that encrypts is upgraded without the operator's key: it converts its own
// backup.
func TestUpgradeWithEncryptedBackup(t *testing.T) {
	t.Parallel()
	operator := newOperator(t)
	l := newLab(t, labOptions{configure: encryptingTo(operator)})
	result, err := manager.Upgrade(l.ctx, l.plan(l.image("2.0.0", 2)), manager.Automatic{}, l.observe)
	if err != nil {
		t.Fatal(err)
	}
	if got := l.userData(operator); !strings.Contains(got, "converted = 1 to 2") {
		t.Errorf("in force:\n%s", got)
	}
	l.checkNoPlainText()
	if _, err := files.Keys(nil).Open(l.store, result.Directory); !errors.Is(err, files.ErrEncrypted) {
		t.Errorf("without a key: %v", err)
	}
	contents, err := files.Keys{operator}.Open(l.store, result.Directory)
	if err != nil || string(contents[mib.FileTypeUserData]) != string(configuration(1)[mib.FileTypeUserData]) {
		t.Errorf("the operator reads %q, %v", contents[mib.FileTypeUserData], err)
	}
}

// remember keeps the directory that it was given decrypted data in.
type remember struct {
	manager.Modifier
	root string
}

func (r *remember) Modify(ctx context.Context, m manager.Modification) error {
	r.root = m.Root
	return r.Modifier.Modify(ctx, m)
}

// Modified here, an encrypted backup is decrypted in a directory that is removed, and what
// the device gets and the store keeps is encrypted.
func TestEncryptedBackupModified(t *testing.T) {
	t.Parallel()
	operator := newOperator(t)
	for name, c := range map[string]struct {
		modifier manager.Modifier
		keys     files.Keys
		answers  []manager.Choice
		want     string
	}{
		"edited":           {modifier: &editor{lines: []string{"by = hand\n"}}, keys: files.Keys{operator}, want: "by = hand"},
		"used as they are": {modifier: &editor{}, keys: files.Keys{operator}, answers: []manager.Choice{manager.UseAsIs}, want: "iad-config userData 2"},
		"without the key":  {modifier: &editor{}, answers: []manager.Choice{manager.GiveUp}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, labOptions{configure: func(l *lab, c *sim.Config) { noConverter(l, c); encryptingTo(operator)(l, c) }})
			plan := l.plan(l.image("2.0.0", 2))
			modifier := &remember{Modifier: c.modifier}
			plan.Modifier, plan.ModifyFirst, plan.Keys = modifier, true, c.keys
			script := &scripted{t: t}
			for _, choice := range c.answers {
				script.answers = append(script.answers, manager.Answer{Choice: choice})
			}
			_, err := manager.Upgrade(l.ctx, plan, script, l.observe)
			if c.want == "" {
				var f *manager.Failure
				if !errors.As(err, &f) || f.Cause != mib.FailCauseKeyMissing || !strings.Contains(err.Error(), "--identity") {
					t.Errorf("ended with %v", err)
				}
				if d, err := plan.Client.Device(l.ctx); err != nil || d.Version != "1.0.0" {
					t.Errorf("the device runs %s, %v: the missing key was found too late", d.Version, err)
				}
			} else if err != nil || !strings.Contains(l.userData(operator), c.want) {
				t.Errorf("%v, in force:\n%s", err, l.userData(operator))
			}
			l.checkNoPlainText()
			if _, err := os.Stat(modifier.root); c.want != "" && (modifier.root == "" || err == nil) {
				t.Errorf("the decrypted data are still in %q", modifier.root)
			}
		})
	}
}

// What a device cannot read is encrypted for it: a backup of another device, with the
// operator's key, and a plain one.
func TestRecoverEncryptsForTheDevice(t *testing.T) {
	t.Parallel()
	operator := newOperator(t)
	l := newLab(t, labOptions{configure: encryptingTo(operator)})
	other, err := agefile.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	plan := l.plan(nil)
	result, err := manager.Backup(l.ctx, plan, manager.Automatic{}, l.observe)
	if err != nil {
		t.Fatal(err)
	}
	// The same data, as another device would have encrypted them.
	strange := path.Join(path.Dir(result.Directory), "20000101T000000Z-1")
	plain := path.Join(path.Dir(result.Directory), "20000101T000000Z-2")
	keys := files.Keys{operator}
	if err := keys.Decrypt(l.store, result.Directory, result.Backup, l.store, plain); err != nil {
		t.Fatal(err)
	}
	if err := afero.WriteFile(l.store, path.Join(plain, "userData.cfg"), []byte("iad-config userData 1\nname = replaced\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Encrypt(l.store, plain, result.Backup, other.Recipient().String(), l.store, strange); err != nil {
		t.Fatal(err)
	}
	recoverFrom := func(dir string, keys files.Keys) error {
		list, err := files.ReadBackup(l.store, dir)
		if err != nil {
			t.Fatal(err)
		}
		plan := l.plan(nil)
		plan.Keys = keys
		_, err = manager.Recover(l.ctx, plan, dir, list, manager.Automatic{}, l.observe)
		return err
	}
	var f *manager.Failure
	if err := recoverFrom(strange, nil); !errors.As(err, &f) || f.Cause != mib.FailCauseKeyMissing {
		t.Errorf("without the key: %v", err)
	}
	if err := recoverFrom(strange, keys); err != nil || !strings.Contains(l.userData(operator), "replaced") {
		t.Errorf("with the key: %v, in force:\n%s", err, l.userData(operator))
	}
	if err := recoverFrom(result.Directory, nil); err != nil || strings.Contains(l.userData(operator), "replaced") {
		t.Errorf("its own backup: %v, in force:\n%s", err, l.userData(operator))
	}
	if err := recoverFrom(plain, nil); err != nil || !strings.Contains(l.userData(operator), "replaced") {
		t.Errorf("plain: %v, in force:\n%s", err, l.userData(operator))
	}
}
