package agent_test

import (
	"bytes"
	"crypto/sha256"
	"strings"
	"testing"

	"aead.dev/minisign"
	"github.com/spf13/afero"

	"example.com/iad/agent"
	"example.com/iad/bank/image"
	"example.com/iad/internal/agefile"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

func newKey(t *testing.T) agefile.Identity {
	t.Helper()
	id, err := agefile.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// encrypted is settings, each file encrypted to a recipient.
func encrypted(t *testing.T, text string, to agefile.Recipient) map[mib.FileType][]byte {
	t.Helper()
	sealed := map[mib.FileType][]byte{}
	for k, data := range settings(1, text) {
		var err error
		if sealed[k], err = agefile.Encrypt(data, to); err != nil {
			t.Fatal(err)
		}
	}
	return sealed
}

// What a device that encrypts sends is for the operator and for itself; it takes it back,
// and what somebody else encrypted to it, and nothing that is plain.
func TestEncryptedBackup(t *testing.T) {
	operator, stranger := newKey(t), newKey(t)
	onBench(t, func(c *sim.Config) { c.Encryption.Recipients = []agefile.Recipient{operator.Recipient()} }, func(b *bench) {
		b.server()
		device, err := agefile.ParseRecipient(b.text(mib.BackupRecipient))
		if err != nil {
			t.Fatal(err)
		}
		b.must(command(backupConfig))
		b.succeeded()
		for k, want := range settings(1, "name") {
			b.mu.Lock()
			sent := b.files[k.String()]
			b.mu.Unlock()
			if bytes.Contains(sent, []byte("name")) || !agefile.Is(sent) {
				t.Fatalf("%s was sent as %q", k, sent)
			}
			if got, err := agefile.Decrypt(sent, operator); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: the operator reads %q, %v", k, got, err)
			}
			if _, err := agefile.Decrypt(sent, stranger); err == nil {
				t.Errorf("%s can be read with any key", k)
			}
			b.want(mib.FileLastSize, int64(len(sent)), uint32(k))
			b.want(mib.FileLastFormat, 1, uint32(k))
			sum := sha256.Sum256(sent)
			b.wantText(mib.FileLastDigest, string(sum[:]), uint32(k))
		}
		b.wantText(mib.ConfigDigest, string(settings(1, "name").Digest()))

		// Back again, after the power was cut: the key stays.
		b.powerCut()
		b.wantText(mib.BackupRecipient, device.String())
		b.must(command(recoverConfig))
		b.succeeded()

		for k, data := range encrypted(t, "edited", device) {
			b.upload(k.String(), data)
		}
		b.must(command(recoverConfig))
		b.succeeded()
		b.wantText(mib.ConfigDigest, string(settings(1, "edited").Digest()))

		for k, data := range settings(1, "plain") {
			b.upload(k.String(), data)
		}
		b.must(command(recoverConfig))
		b.failed(mib.FailCauseNotPermitted)
		for k, data := range encrypted(t, "other", stranger.Recipient()) {
			b.upload(k.String(), data)
		}
		b.must(command(recoverConfig))
		b.failed(mib.FailCauseKeyMissing)
		for k, data := range encrypted(t, "cut", device) {
			b.upload(k.String(), data[:len(data)-1])
		}
		b.must(command(recoverConfig))
		b.failed(mib.FailCauseBadFormat)
		b.wantText(mib.ConfigDigest, string(settings(1, "edited").Digest()))
	})
}

// A device that does not encrypt has no key and says so; one that does may accept plain
// files if its settings allow that.
func TestPlainFilesAndEncryption(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.server()
		b.wantText(mib.BackupRecipient, "")
		for k, data := range encrypted(t, "secret", newKey(t).Recipient()) {
			b.upload(k.String(), data)
		}
		b.must(command(recoverConfig))
		b.failed(mib.FailCauseKeyMissing)
	})
	allowed := func(c *sim.Config) {
		c.Encryption.Recipients = []agefile.Recipient{newKey(t).Recipient()}
		c.Encryption.AcceptPlain = true
	}
	onBench(t, allowed, func(b *bench) {
		b.server()
		for k, data := range settings(1, "plain") {
			b.upload(k.String(), data)
		}
		b.must(command(recoverConfig))
		b.succeeded()
		b.wantText(mib.ConfigDigest, string(settings(1, "plain").Digest()))
	})
}

// Both copies of a new key are there from the beginning: power that fails later must find one.
func TestBackupKeyMadeTwice(t *testing.T) {
	disk := sim.Memory()
	cfg := agent.Config{
		DeviceID: "IAD-0001", Hardware: hardware, Trust: image.TrustKeys(maker().Public().(minisign.PublicKey)),
		Banks: disk.Banks, State: disk.State, Data: disk.Data, Work: disk.Work, Platform: idleBoard{},
	}
	cfg.Encryption.Recipients = []agefile.Recipient{newKey(t).Recipient()}
	if err := agent.Provision(cfg, bytes.NewReader(factory()), settings(1, "name")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"backup-key.a", "backup-key.b"} {
		if exists, err := afero.Exists(disk.State, name); !exists {
			t.Errorf("there is no %s, %v", name, err)
		}
	}
}

// One damaged copy of the key costs nothing, and is replaced.
func TestBackupKeyInTwoCopies(t *testing.T) {
	operator := newKey(t)
	for _, spoilt := range []string{"backup-key.a", "backup-key.b"} {
		onBench(t, func(c *sim.Config) { c.Encryption.Recipients = []agefile.Recipient{operator.Recipient()} }, func(b *bench) {
			before := b.text(mib.BackupRecipient)
			for range 2 {
				if exists, _ := afero.Exists(b.cfg.Disk.State, spoilt); !exists {
					t.Errorf("there is no %s", spoilt)
				}
				if err := afero.WriteFile(b.cfg.Disk.State, spoilt, []byte("spoilt"), 0o600); err != nil {
					t.Fatal(err)
				}
				b.powerCut()
				if after := b.text(mib.BackupRecipient); after != before {
					t.Errorf("%s spoilt: the recipient was %q and is %q", spoilt, before, after)
				}
			}
		})
	}
}

// A key that is damaged is replaced, and the event of the start says so.
func TestBackupKeyLost(t *testing.T) {
	operator := newKey(t)
	onBench(t, func(c *sim.Config) { c.Encryption.Recipients = []agefile.Recipient{operator.Recipient()} }, func(b *bench) {
		before := b.text(mib.BackupRecipient)
		for _, name := range []string{"backup-key.a", "backup-key.b"} {
			if err := afero.WriteFile(b.cfg.Disk.State, name, []byte("spoilt"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		b.powerCut()
		if after := b.text(mib.BackupRecipient); after == before || after == "" {
			t.Errorf("the recipient was %q and is %q", before, after)
		}
		last := uint32(b.num(mib.EventSeq))
		if got := b.text(mib.EventText, last); !strings.Contains(got, "backup-key") {
			t.Errorf("the event of the start says %q", got)
		}
		b.server()
		b.must(command(backupConfig))
		b.succeeded()
	})
}
