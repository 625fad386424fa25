package partition

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"example.com/iad/bank"
	"example.com/iad/internal/crashfs"
)

// checkReadAt compares what ReadAt returns anywhere with what is read from front to end.
func checkReadAt(t *testing.T, part bank.Partition) {
	t.Helper()
	r, err := part.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	first := make([]byte, 10)
	if n, err := r.ReadAt(first, 3); n != len(first) || err != nil {
		t.Errorf("%s: %d bytes, %v", part, n, err)
	}
	all, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(all[3:13], first) {
		t.Fatalf("%s: ReadAt moves Read, %v", part, err)
	}
	random := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		at := random.IntN(len(all) + 1)
		p := make([]byte, random.IntN(10_000))
		n, err := r.ReadAt(p, int64(at))
		want := all[at:min(at+len(p), len(all))]
		if !bytes.Equal(p[:n], want) || n < len(p) && err != io.EOF || n == len(p) && err != nil && err != io.EOF {
			t.Fatalf("%s: %d bytes at %d: %d that differ, %v", part, len(p), at, n, err)
		}
	}
}

// TestReadAt reads pieces of all kinds of partitions, also across bad erase blocks.
func TestReadAt(t *testing.T) {
	content := make([]byte, blocks*eraseBlock)
	_, _ = rand.NewChaCha8([32]byte{}).Read(content)
	bad := make([]byte, blocks)
	bad[0], bad[3], bad[4] = 1, 1, 1
	m := crashfs.NewDisk("chip").Write("chip", flashName, content).Write("chip", badName, bad).Start()
	checkReadAt(t, Flash{Name: "flash", open: func(string, bool) (nand, error) { return openChip(m.Fs("chip")) }})
	checkReadAt(t, Volume{Name: "volume", device: volumes{fs: m.Fs("chip")}})
	name := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	checkReadAt(t, Block{Name: name})
	if err := os.WriteFile(name, bytes.Repeat(content, 5), 0o600); err != nil {
		t.Fatal(err)
	}
	checkReadAt(t, direct512{Block{Name: name}})
}

// direct512 reads a file as a block device with sectors of 512 bytes is read.
type direct512 struct{ Block }

func (b direct512) Open() (bank.PartitionReader, error) {
	f, err := os.Open(b.Name)
	return &directReader{disk: &disk{File: f, sector: 512, direct: true}, buf: aligned(pieceSize)}, err
}
