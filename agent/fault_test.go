package agent_test

import (
	"io"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

// The faults of a download come to small software too, in both forms, and the device
// gets over them by another attempt. Configuration data and manifests are spared.
func TestDownloadFaults(t *testing.T) {
	for _, form := range []string{"tar", "split"} {
		for _, kind := range []sim.FaultKind{sim.Corrupt, sim.Stall} {
			t.Run(form+" "+string(kind), func(t *testing.T) {
				afflict := func(c *sim.Config) { c.Faults = []sim.Fault{{Kind: kind}} }
				onBench(t, func(c *sim.Config) { afflict(c) }, func(b *bench) {
					b.server()
					b.must(command(backupConfig))
					b.succeeded()
					b.must(command(recoverConfig))
					b.succeeded()
					b.image("2.0.0", 1)
					if form == "split" {
						b.splitImage("2.0.0")
					}
					b.must(command(downloadSoftware), num(mib.ReqRetries, 0))
					want := mib.FailCauseDigestMismatch
					if kind == sim.Stall {
						want = mib.FailCauseTransferTimeout
					}
					time.Sleep(time.Minute) // until the time limit of a stalled transfer
					b.failed(want)
					b.must(command(downloadSoftware))
					b.succeeded()
				})
				onBench(t, func(c *sim.Config) { afflict(c) }, func(b *bench) {
					b.server()
					b.image("2.0.0", 1)
					b.must(command(downloadSoftware), num(mib.ReqRetries, 2))
					time.Sleep(2 * time.Minute)
					b.succeeded()
					b.want(mib.OpAttempt, 2)
				})
			})
		}
	}
}

// splitImage uploads small software in split form.
func (b *bench) splitImage(version string) {
	b.t.Helper()
	files := afero.NewMemMapFs()
	err := image.BuildSplit(files, "image", image.Manifest{Version: version, Hardware: []string{hardware}, ConfigFormat: 1},
		[]image.PayloadFile{{Name: "app", Mode: 0o755, Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("app\n")), nil }}}, maker())
	if err != nil {
		b.t.Fatal(err)
	}
	infos, err := afero.ReadDir(files, "image")
	if err != nil {
		b.t.Fatal(err)
	}
	for _, info := range infos {
		data, err := afero.ReadFile(files, path.Join("image", info.Name()))
		if err != nil {
			b.t.Fatal(err)
		}
		b.upload(strings.Replace(info.Name(), image.ManifestName, "software", 1), data)
	}
}
