package files_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/internal/iadtest"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
	"example.com/iad/transfer"
)

// lines hands on each line of a log.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

// sumOf is what a directory holds.
func sumOf(t *testing.T, disk afero.Fs, dir string) (sum int64) {
	t.Helper()
	list, err := afero.ReadDir(disk, dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range list {
		sum += info.Size()
	}
	return sum
}

func textOf(n int, octet byte) []byte { return bytes.Repeat([]byte{octet}, n) }

// A backup's directory takes so many bytes and files in all, however they are divided,
// also after the session is resumed; the device and the log get the reason.
func TestServersLimitSum(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p device.Protocol) {
		const most = 200_000 // twice the largest file
		log := make(lines, 1000)
		s, disk := iadtest.StartServers(t, func(c *files.ServersConfig) {
			c.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn}))
		})
		session, err := s.Open(p, "A", "127.0.0.1:161")
		if err != nil {
			t.Fatal(err)
		}
		dir, names, err := session.NewBackup(iadtest.OneKind)
		if err != nil {
			t.Fatal(err)
		}
		put := func(session files.Session, data []byte) error {
			a := session.Address()
			c := iadtest.DeviceClient(t, s, a, int(a.Port), transfer.Options{})
			defer c.Close()
			_, err := c.Put(t.Context(), dir+"/userData.cfg", bytes.NewReader(data), int64(len(data)))
			return err
		}
		refused := func(what string, err error, says string) {
			t.Helper()
			var failure *transfer.Error
			if !errors.As(err, &failure) || failure.Code != mib.FailCauseRemoteStorageFull || !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %v", what, err)
			}
			if sum := sumOf(t, disk, dir); sum > most {
				t.Errorf("%s: the directory holds %d bytes", what, sum)
			}
			for limit := time.After(30 * time.Second); ; { // the device may hear of it first
				select {
				case line := <-log:
					if strings.Contains(line, says) {
						return
					}
				case <-limit:
					t.Fatalf("%s: not logged", what)
				}
			}
		}
		const full = "directory full, 200000 bytes"
		for i := range 2 {
			if err := put(session, textOf(90_000, byte(i))); err != nil {
				t.Fatal(err)
			}
		}
		refused("a third version", put(session, textOf(90_000, 'x')), full)
		session.Close()
		again, err := s.Open(p, "A", "127.0.0.1:161")
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		again.Resume(dir, names)
		refused("after the session was resumed", put(again, textOf(20_001, 'x')), full)
		if err := put(again, textOf(20_000, 'x')); err != nil { // what was refused takes no room
			t.Error(err)
		}
		refused("a full directory", put(again, []byte("x")), full)

		if dir, _, err = again.NewBackup(iadtest.OneKind); err != nil {
			t.Fatal(err)
		}
		for i := range 64 {
			if err := put(again, fmt.Append(nil, i)); err != nil {
				t.Fatal(err)
			}
		}
		refused("a file too many", put(again, []byte("x")), "directory full, 64 files")
	})
}

// Uploads in progress count too.
func TestServersLimitSumInProgress(t *testing.T) {
	log := make(lines, 1000)
	s, disk := iadtest.StartServers(t, func(c *files.ServersConfig) {
		c.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	})
	var dir string
	results := make(chan error, 3)
	var writers []*io.PipeWriter
	session, first := open(t, s, device.FTP, "A")
	dir, _, err := session.NewBackup(iadtest.OneKind)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		c := first
		if i > 0 {
			c = login(t, session.Address())
		}
		r, w := io.Pipe()
		writers = append(writers, w)
		go func() { results <- c.(ftpClient).Stor(fmt.Sprintf("%s/file%d", dir, i), r) }()
		go func() { _, _ = w.Write(textOf(90_000, byte(i))) }() // ends with the pipe
	}
	for limit, seen := time.After(30*time.Second), false; !seen; {
		select {
		case line := <-log:
			seen = strings.Contains(line, "directory full, 200000 bytes")
		case <-limit:
			t.Error("no upload was refused")
			seen = true
		}
	}
	if sum := sumOf(t, disk, dir); sum > 200_000 {
		t.Errorf("the directory holds %d bytes", sum)
	}
	for _, w := range writers {
		_ = w.Close()
	}
	failed := 0
	for range 3 {
		if err := <-results; err != nil {
			failed++
			if !strings.Contains(err.Error(), "directory full, 200000 bytes") {
				t.Error(err)
			}
		}
	}
	if sum := sumOf(t, disk, dir); failed == 0 || sum != int64(3-failed)*90_000 {
		t.Errorf("%d uploads failed, the directory holds %d bytes", failed, sum)
	}
}
