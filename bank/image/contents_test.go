package image_test

import (
	"runtime"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/internal/imagetest"
	"example.com/iad/mib"
)

// TestContentsMemory: the sizes in a manifest, which nobody has verified, do not decide how
// much memory is taken.
func TestContentsMemory(t *testing.T) {
	parts := imagetest.TakeApart(t, "1.0.0").Resign(t, func(m *image.Manifest) { m.Payloads[0].Size = 3 << 30 }, imagetest.Key)
	fs := afero.NewMemMapFs()
	for name, data := range parts.Split("dir") {
		if err := afero.WriteFile(fs, name, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _, err := image.ContentsSplit(fs, "dir/"+image.ManifestName, nil)
	runtime.ReadMemStats(&after)
	if mib.CauseOf(err, 0) != mib.FailCauseSizeMismatch {
		t.Error(err)
	}
	if spent := after.TotalAlloc - before.TotalAlloc; spent > 16<<20 {
		t.Errorf("%d bytes allocated for a small file", spent)
	}
}
