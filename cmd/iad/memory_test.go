package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/bank/image/encode"
	"example.com/iad/bank/image/frame"
	"example.com/iad/internal/agefile"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

// mostMemory is the largest peak of resident memory of iad, in bytes.
const mostMemory = 14_000_000

// The peak of resident memory while software is downloaded, by each protocol, does not grow with
// the file.
func TestPeakMemory(t *testing.T) {
	if program == os.Args[0] {
		t.Skip("measures a program without the race detector: run it by make memory")
	}
	for _, protocol := range []device.Protocol{device.TFTP, device.FTP} {
		for _, size := range []int{1 << 20, 64 << 20, 100 << 20} {
			t.Run(fmt.Sprintf("%s/%d MiB", protocol, size>>20), func(t *testing.T) {
				peak := peakOf(t, protocol, func(d *unit) []byte { return d.image("2.0.0", size) })
				fmt.Printf("peak resident memory of iad, %3d MiB by %-4s: %5.1f MiB\n", size>>20, protocol, float64(peak)/(1<<20))
				if peak > mostMemory {
					t.Errorf("%d bytes", peak)
				}
			})
		}
	}
}

// Compressed images and differences take less than a megabyte more, for the decoder.
func TestPeakMemoryOfEncodings(t *testing.T) {
	if program == os.Args[0] {
		t.Skip("measures a program without the race detector: run it by make memory")
	}
	content := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(content)
	content = []byte(hex.EncodeToString(content))
	base := []byte(strings.Repeat("1.0.0\n", 100_000/6)) // what newDevice installs
	full, err := encode.XZ(t.Context(), "firmware.xz", content, frame.MaxSize)
	if err != nil {
		t.Fatal(err)
	}
	delta, err := encode.XZDelta(t.Context(), "firmware.d", content, base, frame.MaxSize)
	if err != nil {
		t.Fatal(err)
	}
	for name, encodings := range map[string][]image.EncodedFile{"plain": nil, "compressed": {full}, "difference": {delta}} {
		peak := peakOf(t, device.FTP, func(d *unit) []byte {
			var b bytes.Buffer
			file := image.PayloadFile{Name: "firmware", Mode: 0o644, Encodings: encodings, Open: func() (io.ReadCloser, error) {
				return io.NopCloser(bytes.NewReader(content)), nil
			}}
			if err := image.Build(&b, image.Manifest{Version: "2.0.0", Hardware: []string{"IAD-4FXS"}, ConfigFormat: 1}, []image.PayloadFile{file}, d.key); err != nil {
				t.Fatal(err)
			}
			return b.Bytes()
		})
		fmt.Printf("peak resident memory of iad, 2 MiB, %-10s: %5.1f MiB\n", name, float64(peak)/(1<<20))
		if peak > mostMemory {
			t.Errorf("%s: %d bytes", name, peak)
		}
	}
}

// An encrypted image of 64 MiB takes no more memory than a small one that is not encrypted, as a
// whole file and as a difference.
func TestPeakMemoryOfEncryption(t *testing.T) {
	if program == os.Args[0] {
		t.Skip("measures a program without the race detector: run it by make memory")
	}
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(t.TempDir(), "model.key")
	if err := os.WriteFile(keyFile, []byte(key.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	to, err := agefile.ParseRecipient(key.Recipient().String())
	if err != nil {
		t.Fatal(err)
	}
	piece := make([]byte, frame.MaxSize/2)
	_, _ = rand.NewChaCha8([32]byte{}).Read(piece)
	piece = []byte(hex.EncodeToString(piece))
	base := []byte(strings.Repeat("1.0.0\n", 100_000/6)) // what newDevice installs
	full, err := encode.XZ(t.Context(), "firmware.xz", piece, frame.MaxSize)
	if err != nil {
		t.Fatal(err)
	}
	delta, err := encode.XZDelta(t.Context(), "firmware.d", append(bytes.Clone(base[:50_000]), piece[50_000:]...), base, frame.MaxSize)
	if err != nil {
		t.Fatal(err)
	}
	const pieces = 256
	for _, c := range []struct {
		name     string
		encoding image.EncodedFile
		content  []byte
	}{
		{"compressed", full, piece},
		{"difference", delta, append(bytes.Clone(base[:50_000]), piece[50_000:]...)},
	} {
		peak := peakOf(t, device.FTP, func(d *unit) []byte {
			file := image.PayloadFile{Name: "firmware", Mode: 0o644, Encodings: []image.EncodedFile{repeated(c.encoding, pieces)},
				Open: func() (io.ReadCloser, error) {
					return io.NopCloser(bytes.NewReader(bytes.Repeat(c.content, pieces))), nil
				}}
			list := []image.PayloadFile{file}
			m := image.Manifest{Version: "2.0.0", Hardware: []string{"IAD-4FXS"}, ConfigFormat: 1}
			if m.Key, err = image.Encrypt(list, to); err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			if err := image.Build(&b, m, list, d.key); err != nil {
				t.Fatal(err)
			}
			return b.Bytes()
		}, "--image-key", keyFile)
		fmt.Printf("peak resident memory of iad, 64 MiB, encrypted, %-10s: %5.1f MiB\n", c.name, float64(peak)/(1<<20))
		if peak > 14<<20 { // the cipher takes its part
			t.Errorf("%s: %d bytes", c.name, peak)
		}
	}
}

// repeated returns the encoding of a payload that repeats the one of e, which has one frame.
func repeated(e image.EncodedFile, n int) image.EncodedFile {
	entry := frame.IndexSize(1, e.Frame)
	one := e.Content[entry:]
	var index []byte
	for range n {
		index = frame.AppendEntry(index, one)
	}
	sum := sha256.Sum256(index)
	e.IndexSHA256 = hex.EncodeToString(sum[:])
	e.Content = append(index, bytes.Repeat(one, n)...)
	e.Size = int64(len(e.Content))
	return e
}

// peakOf is the peak of resident memory while a device downloads an image.
func peakOf(t *testing.T, protocol device.Protocol, build func(d *unit) []byte, init ...string) int {
	d := newDevice(t, init...)
	d.start()
	disk := afero.NewMemMapFs()
	srv, err := files.StartServers(files.ServersConfig{Files: disk, TFTP: "127.0.0.1:0", FTP: "127.0.0.1:0", Advertise: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	c := d.client()
	session, err := srv.Open(protocol, "IAD-0001", c.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	if err := afero.WriteFile(disk, "fw.iad", build(d), 0o644); err != nil {
		t.Fatal(err)
	}
	img, err := files.OpenImage(disk, "fw.iad")
	if err != nil {
		t.Fatal(err)
	}
	dir, name, err := session.Publish(img)
	if err != nil {
		t.Fatal(err)
	}
	op, err := c.Start(t.Context(), device.Request{
		Kind: mib.OperationKindDownloadSoftware, ID: device.NewReqID(), Owner: "memory",
		Server: &device.ServerRow{Index: 1, FileServerAddress: session.Address(), Path: dir},
		Files:  []device.FileRow{{Kind: mib.FileTypeSoftware, Name: name}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for !op.Final() {
		if op, err = c.Operation(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if op.State != mib.OperationStateSucceeded {
		t.Fatalf("download: %v, %v: %s", op.State, op.Cause, op.Text)
	}
	return highWater(t, d.cmd.Process.Pid)
}

// highWater is VmHWM in bytes, see proc(5).
func highWater(t *testing.T, pid int) int {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(data, []byte("VmHWM:"))
	fields := bytes.Fields(rest)
	if len(fields) == 0 {
		t.Fatal("the kernel does not report the peak")
	}
	kib, err := strconv.Atoi(string(fields[0]))
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}
