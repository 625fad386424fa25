package sim_test

import (
	"bytes"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/manager/device"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

// Software that must not be installed is refused with its cause, by each
// protocol and in both forms, and the running bank stays as it is.
func TestRefusedSoftware(t *testing.T) {
	const capacity = 600_000
	good := image.Manifest{Version: "2.0.0", ConfigFormat: 1}
	cases := []struct {
		name  string
		cause mib.FailCause
		// spoil returns what the server has under each name.
		manifest func(*image.Manifest)
		spoil    func(t *testing.T, files map[string][]byte)
		foreign  bool // signed by somebody else
		large    bool
	}{
		{name: "wrong signature", cause: mib.FailCauseSignatureInvalid, spoil: func(t *testing.T, files map[string][]byte) {
			flip(t, files, hardware, "IAD-4FXT")
		}},
		{name: "foreign signer", cause: mib.FailCauseSignerUntrusted, foreign: true},
		{name: "wrong hardware", cause: mib.FailCauseIncompatibleHardware, manifest: func(m *image.Manifest) { m.Hardware = []string{"OTHER"} }},
		{name: "flipped payload bit", cause: mib.FailCauseDigestMismatch, spoil: func(t *testing.T, files map[string][]byte) {
			flip(t, files, "software 2.0.0\nsoftware", "software 2.0.0\nsoftwarf")
		}},
		{name: "truncated tail", cause: mib.FailCauseSizeMismatch, spoil: func(_ *testing.T, files map[string][]byte) {
			for name, data := range files {
				if name == "fw.iad" || name == "firmware" {
					files[name] = data[:len(data)-5000]
				}
			}
		}},
		{name: "below min_version", cause: mib.FailCausePreconditionMissing, manifest: func(m *image.Manifest) { m.MinVersion = "1.5.0" }},
		{name: "larger than the bank", cause: mib.FailCauseFileTooLarge, large: true},
	}
	for _, c := range cases {
		for _, protocol := range []device.Protocol{device.TFTP, device.FTP} {
			for _, split := range []bool{false, true} {
				t.Run(c.name+"/"+protocol.String()+map[bool]string{true: "/split", false: "/tar"}[split], func(t *testing.T) {
					l := newLab(t, func(cfg *sim.Config) { cfg.BankSize = capacity })
					if c.foreign {
						l.key = newKey(t)
					}
					m := good
					if c.manifest != nil {
						c.manifest(&m)
					}
					var extra []image.PayloadFile
					if c.large {
						extra = append(extra, payload("data", string(make([]byte, capacity)), 0o644))
					}
					files, name := l.imageFiles(m, split, extra...)
					if c.spoil != nil {
						c.spoil(t, files)
					}
					before := l.device.Agent(t.Context(), 1).Tree().Get(bankOIDs(1))
					op := l.download(protocol, files, name, mib.OperationKindDownloadSoftware)
					if op.State != mib.OperationStateFailed || op.Cause != c.cause {
						t.Errorf("operation %v, cause %v (%s), want %v", op.State, op.Cause, op.Text, c.cause)
					}
					after := l.device.Agent(t.Context(), 1).Tree().Get(bankOIDs(1))
					for i := range before {
						if !before[i].Value.Equal(after[i].Value) {
							t.Errorf("the running bank changed: %v was %v, is %v", before[i].OID, before[i].Value, after[i].Value)
						}
					}
				})
			}
		}
	}
}

// imageFiles returns the files of an image as a server would have them, and the name
// to command.
func (l *lab) imageFiles(m image.Manifest, split bool, extra ...image.PayloadFile) (map[string][]byte, string) {
	l.t.Helper()
	files := map[string][]byte{}
	if !split {
		files["fw.iad"] = l.build(m, extra...)
		return files, "fw.iad"
	}
	fs := afero.NewMemMapFs()
	if m.Hardware == nil {
		m.Hardware = []string{hardware}
	}
	if err := image.BuildSplit(fs, "/fw", m, append(extra, firmware(m.Version)), l.key); err != nil {
		l.t.Fatal(err)
	}
	list, err := afero.ReadDir(fs, "/fw")
	if err != nil {
		l.t.Fatal(err)
	}
	for _, f := range list {
		if files[f.Name()], err = afero.ReadFile(fs, "/fw/"+f.Name()); err != nil {
			l.t.Fatal(err)
		}
	}
	return files, image.ManifestName
}

// flip replaces the first occurrence of a text in one of the files.
func flip(t *testing.T, files map[string][]byte, from, to string) {
	t.Helper()
	for name, data := range files {
		if bytes.Contains(data, []byte(from)) {
			files[name] = bytes.Replace(data, []byte(from), []byte(to), 1)
			return
		}
	}
	t.Fatalf("no file has %q", from)
}

func bankOIDs(n uint32) (list []mib.OID) {
	m := mib.NewModule(nil)
	for _, o := range mib.BankEntry.Columns {
		// Only the roles may change: the running bank becomes the fallback
		// before the other one is erased.
		if o.Access != mib.NotAccessible && o != mib.BankRoles {
			list = append(list, m.OID(o, n))
		}
	}
	return list
}
