package files

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/transfer/tftp"
)

var tftpTerms = []tftp.Options{
	{},
	{BlockSize: 1428, HasSize: true, Timeout: 1},
	{BlockSize: 1428, Window: 2},
	{BlockSize: 1000, Window: 64, HasSize: true, Timeout: 1},
	{Window: 1000},
}

// eachLine runs a test on lines of every kind, in no real time.
func eachLine(t *testing.T, test func(l *tftpLab, size int, o tftp.Options)) {
	for _, line := range []struct {
		name               string
		delay              time.Duration
		loss, double, late float64
	}{
		{name: "good", delay: time.Millisecond},
		{name: "far", delay: 100 * time.Millisecond},
		{name: "doubling", delay: 10 * time.Millisecond, double: 1},
		{name: "reordering", delay: 10 * time.Millisecond, late: 0.2},
		{name: "bad", delay: 10 * time.Millisecond, loss: 0.05, double: 0.05, late: 0.05},
		{name: "far and bad", delay: 100 * time.Millisecond, loss: 0.05, double: 0.01, late: 0.01},
	} {
		for i, o := range tftpTerms {
			block := max(512, o.BlockSize)
			for _, size := range []int{0, 1, block, 3*block - 1, 50_000} {
				t.Run(fmt.Sprintf("%s/%d/%d", line.name, i, size), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						test(newTFTPLab(t, badLine(int64(size), line.delay, line.loss, line.double, line.late),
							badLine(int64(size)+1, line.delay, line.loss, line.double, line.late)), size, o)
					})
				})
			}
		}
	}
}

func TestTFTPDownloads(t *testing.T) {
	eachLine(t, func(l *tftpLab, size int, o tftp.Options) {
		want := contents(size)
		if err := afero.WriteFile(l.store.files, l.dir+"f", want, 0o600); err != nil {
			l.Fatal(err)
		}
		if got, _ := l.download(l.dir+"f", o); !bytes.Equal(got, want) {
			l.Errorf("%d bytes came of %d, or other ones", len(got), len(want))
		}
	})
}

func TestTFTPUploads(t *testing.T) {
	eachLine(t, func(l *tftpLab, size int, o tftp.Options) {
		want := contents(size)
		if o.HasSize {
			o.Size = int64(size)
		}
		if p := l.upload(l.dir+"f", want, o); p.Op == tftp.OpError {
			l.Fatalf("ERROR %d %s", p.Code, p.Message)
		}
		l.holds("f", want)
	})
}

// holds checks that the directory has exactly one file, complete.
func (l *tftpLab) holds(name string, want []byte) {
	l.Helper()
	if got, err := afero.ReadFile(l.store.files, l.dir+name); err != nil || !bytes.Equal(got, want) {
		l.Errorf("%s holds %d bytes of %d, %v", name, len(got), len(want), err)
	}
	if list, err := afero.ReadDir(l.store.files, l.dir); err != nil || len(list) != 1 {
		l.Errorf("the directory holds %d files, %v", len(list), err)
	}
}

// TestTFTPRollover: block numbers go on with 0 after 65535.
func TestTFTPRollover(t *testing.T) {
	for _, window := range []int{1, 64} {
		synctest.Test(t, func(t *testing.T) {
			l := newTFTPLab(t, nil, nil)
			want := contents(8*70_000 + 3)
			o := tftp.Options{BlockSize: 8, Window: window}
			l.upload(l.dir+"f", want, o)
			l.holds("f", want)
			l.connect(nil, nil)
			if got, _ := l.download(l.dir+"f", o); !bytes.Equal(got, want) {
				t.Errorf("%d bytes came of %d, or other ones", len(got), len(want))
			}
		})
	}
}

// TestTFTPSorcerersApprentice: acknowledgements that come twice do not double the
// data (RFC 1123 section 4.2.3.1).
func TestTFTPSorcerersApprentice(t *testing.T) {
	for _, o := range tftpTerms {
		synctest.Test(t, func(t *testing.T) {
			l := newTFTPLab(t, badLine(1, 5*time.Millisecond, 0, 0, 0), badLine(2, 5*time.Millisecond, 0, 1, 0))
			if err := afero.WriteFile(l.store.files, l.dir+"f", contents(100_000), 0o600); err != nil {
				t.Fatal(err)
			}
			block := 512
			if o.BlockSize > 0 {
				block = o.BlockSize
			}
			if _, packets := l.download(l.dir+"f", o); packets != 100_000/block+1 {
				t.Errorf("%+v: %d blocks were sent, %d are in the file", o, packets, 100_000/block+1)
			}
		})
	}
}

// losing loses the datagrams that a test names.
func losing(lose func(tftp.Packet) bool) func([]byte) []time.Duration {
	return func(b []byte) []time.Duration {
		if p, err := tftp.Parse(b); err == nil && lose(p) {
			return nil
		}
		return []time.Duration{time.Millisecond}
	}
}

func TestTFTPLastAcknowledgementLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lost := 0
		l := newTFTPLab(t, losing(func(p tftp.Packet) bool {
			if p.Op == tftp.OpAck && p.Block == 3 && lost < 2 {
				lost++
				return true
			}
			return false
		}), nil)
		want := contents(1200)
		if p := l.upload(l.dir+"f", want, tftp.Options{}); p.Op != tftp.OpAck || lost != 2 {
			t.Errorf("upload ended with %+v, %d acknowledgements lost", p, lost)
		}
		l.holds("f", want)
	})
}

// TestTFTPSilence: a client that says no more is given up in time, sooner before it
// has said anything, and leaves nothing behind.
func TestTFTPSilence(t *testing.T) {
	for name, x := range map[string]struct {
		op      tftp.Op
		options tftp.Options
		speak   bool
		most    time.Duration
	}{
		"read, never heard":          {tftp.OpReadRequest, tftp.Options{}, false, tftpFirstPatience + 8*time.Second},
		"read, options, never heard": {tftp.OpReadRequest, tftp.Options{BlockSize: 1000}, false, tftpFirstPatience + 8*time.Second},
		"read, heard":                {tftp.OpReadRequest, tftp.Options{}, true, tftpPatience + 8*time.Second},
		"write, never heard":         {tftp.OpWriteRequest, tftp.Options{}, false, tftpFirstPatience + 8*time.Second},
		"write, heard":               {tftp.OpWriteRequest, tftp.Options{}, true, tftpPatience + 8*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newTFTPLab(t, nil, nil)
				target := "g"
				if x.op == tftp.OpReadRequest {
					target = "f"
					if err := afero.WriteFile(l.store.files, l.dir+"f", contents(2000), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				begun := time.Now()
				l.request(x.op, l.dir+target, x.options)
				if x.speak && x.op == tftp.OpReadRequest {
					_, _ = l.client.Write(tftp.AppendAck(nil, 1))
				} else if x.speak {
					_, _ = l.client.Write(append(tftp.AppendDataHeader(nil, 1), contents(512)...))
				}
				l.server.tasks.Wait()
				if took := time.Since(begun); took > x.most {
					t.Errorf("given up after %v", took)
				}
				last := tftp.Packet{}
				for len(l.client.inbox) > 0 {
					last, _ = l.client.receive(t, 0)
				}
				if last.Op != tftp.OpError {
					t.Errorf("the client's last packet is %+v", last)
				}
				if _, err := l.store.files.Stat(l.dir + "g"); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("half a file: %v", err)
				}
			})
		})
	}
}

// TestTFTPStop: stopping waits for no client.
func TestTFTPStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTFTPLab(t, nil, nil)
		l.request(tftp.OpWriteRequest, l.dir+"f", tftp.Options{})
		synctest.Wait()
		begun := time.Now()
		l.stop()
		l.server.tasks.Wait()
		if took := time.Since(begun); took != 0 {
			t.Errorf("stopping took %v", took)
		}
		for len(l.client.inbox) > 0 {
			if p, _ := l.client.receive(t, 0); p.Op == tftp.OpError && p.Message == errServerStops.Error() {
				return
			}
		}
		t.Error("the client received no error")
	})
}

// TestTFTPBandwidth: a window waits for its bandwidth, and what waits is not sent twice.
func TestTFTPBandwidth(t *testing.T) {
	for _, o := range tftpTerms {
		synctest.Test(t, func(t *testing.T) {
			l := newTFTPLab(t, badLine(1, 5*time.Millisecond, 0, 0, 0), badLine(2, 5*time.Millisecond, 0, 0, 0))
			l.store.limiter = newLimiter(50_000)
			if err := afero.WriteFile(l.store.files, l.dir+"f", contents(100_000), 0o600); err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			_, packets := l.download(l.dir+"f", o)
			block := max(512, o.BlockSize)
			if packets != 100_000/block+1 {
				t.Errorf("%+v: %d blocks were sent, %d are in the file", o, packets, 100_000/block+1)
			}
			if took := time.Since(begun); took < 1900*time.Millisecond {
				t.Errorf("%+v: 100,000 bytes at 50,000 a second took %v", o, took)
			}
		})
	}
}

// TestTFTPErrors: each failure has the code that RFC 1350 gives it.
func TestTFTPErrors(t *testing.T) {
	full := func(l *tftpLab) { l.store.files = fullFs{l.store.files} }
	for name, x := range map[string]struct {
		op      tftp.Op
		file    string
		raw     string // instead of the above
		options tftp.Options
		data    int
		prepare func(*tftpLab)
		want    tftp.ErrorCode
	}{
		"no such file":         {op: tftp.OpReadRequest, file: "backup/A/1/none", want: tftp.ErrFileNotFound},
		"somebody else's file": {op: tftp.OpReadRequest, file: "backup/B/1/f", want: tftp.ErrFileNotFound},
		"name not allowed":     {op: tftp.OpReadRequest, file: "../etc/passwd", want: tftp.ErrAccessViolation},
		"no upload here":       {op: tftp.OpWriteRequest, file: "f", want: tftp.ErrAccessViolation},
		"not a name for it":    {op: tftp.OpWriteRequest, file: "backup/A/1/g", want: tftp.ErrAccessViolation},
		"too large, announced": {op: tftp.OpWriteRequest, file: "backup/A/1/f", options: tftp.Options{HasSize: true, Size: 4<<20 + 1}, want: tftp.ErrDiskFull},
		"too large":            {op: tftp.OpWriteRequest, file: "backup/A/1/f", options: tftp.Options{BlockSize: 60_000}, data: 4<<20 + 1, want: tftp.ErrDiskFull},
		"disk full":            {op: tftp.OpWriteRequest, file: "backup/A/1/f", data: 10, prepare: full, want: tftp.ErrDiskFull},
		"exists": {op: tftp.OpWriteRequest, file: "backup/A/1/f", data: 10, want: tftp.ErrFileExists, prepare: func(l *tftpLab) {
			l.store.files = crowdedFs{l.store.files}
		}},
		"size not as announced": {op: tftp.OpWriteRequest, file: "backup/A/1/f", options: tftp.Options{HasSize: true, Size: 11}, data: 10, want: tftp.ErrNotDefined},
		"text mode":             {raw: "\x00\x01backup/A/1/f\x00netascii\x00", want: tftp.ErrIllegal},
		"mail":                  {raw: "\x00\x02somebody\x00mail\x00", want: tftp.ErrIllegal},
		"no name":               {raw: "\x00\x01\x00octet\x00", want: tftp.ErrIllegal},
		"no mode":               {raw: "\x00\x02f\x00", want: tftp.ErrIllegal},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newTFTPLab(t, nil, nil)
				if x.prepare != nil {
					x.prepare(l)
				}
				var p tftp.Packet
				switch {
				case x.raw != "":
					request, _ := parseTFTPRequest([]byte(x.raw))
					l.server.handle(request, x.raw, netip.MustParseAddrPort("192.0.2.1:1000"), netip.Addr{})
					p, _ = l.client.receive(t, time.Second)
				case x.op == tftp.OpReadRequest:
					l.request(x.op, x.file, x.options)
					p, _ = l.client.receive(t, time.Second)
				default:
					p = l.upload(x.file, contents(x.data), x.options)
				}
				if p.Op != tftp.OpError || p.Code != x.want {
					t.Errorf("got %+v, want error %d", p, x.want)
				}
			})
		})
	}
}

// fullFs has no room for data.
type fullFs struct{ afero.Fs }

func (f fullFs) OpenFile(name string, flag int, perm fs.FileMode) (afero.File, error) {
	file, err := f.Fs.OpenFile(name, flag, perm)
	return fullFile{file}, err
}

type fullFile struct{ afero.File }

func (fullFile) Write([]byte) (int, error) {
	return 0, &fs.PathError{Op: "write", Path: "f", Err: syscall.ENOSPC}
}

// crowdedFs has every name already.
type crowdedFs struct{ afero.Fs }

func (f crowdedFs) Stat(string) (fs.FileInfo, error) { return virtualInfo{}, nil }
func (f crowdedFs) Open(name string) (afero.File, error) {
	file, err := f.Fs.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return f.Fs.OpenFile("other", os.O_RDWR|os.O_CREATE, 0o600)
	}
	return file, err
}

// TestTFTPRequests: one port has one transfer; repetitions and crowds do no harm.
func TestTFTPRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTFTPLab(t, nil, nil)
		l.server.dialer = func(netip.Addr, netip.AddrPort) (tftp.Conn, error) {
			server, _ := memoryPair(func([]byte) []time.Duration { return nil }, nil)
			return server, nil
		}
		count := func() int {
			synctest.Wait()
			l.server.mu.Lock()
			defer l.server.mu.Unlock()
			return len(l.server.transfers)
		}
		for range 3 {
			l.request(tftp.OpWriteRequest, l.dir+"f", tftp.Options{})
		}
		if n := count(); n != 1 {
			t.Errorf("a request that was repeated began %d transfers", n)
		}
		l.request(tftp.OpWriteRequest, l.dir+"f", tftp.Options{Window: 2})
		if n := count(); n != 1 {
			t.Errorf("a port has %d transfers", n)
		}
		if err := afero.WriteFile(l.store.files, l.dir+"f", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for port := range 1000 {
			l.requestFrom(tftp.OpReadRequest, l.dir+"f", tftp.Options{}, netip.AddrPortFrom(netip.MustParseAddr("192.0.2.2"), uint16(2000+port)))
		}
		if n := count(); n != 1+maxTFTPPerHost {
			t.Errorf("%d transfers while one host asks for very many", n)
		}
		for host := range 1000 {
			l.requestFrom(tftp.OpReadRequest, l.dir+"f", tftp.Options{}, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(host >> 8), byte(host)}), 1))
		}
		if n := count(); n != maxTFTPTransfers {
			t.Errorf("%d transfers while very many hosts ask", n)
		}
	})
}

// TestTFTPCrowdedDirectory: uploads that nobody goes on with take no room from one that somebody
// does, and leave nothing behind.
func TestTFTPCrowdedDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTFTPLab(t, nil, nil)
		toClient := l.server.dialer
		l.server.dialer = func(netip.Addr, netip.AddrPort) (tftp.Conn, error) {
			server, _ := memoryPair(nil, nil)
			return server, nil
		}
		for port := range 2 * maxGrantFiles {
			l.requestFrom(tftp.OpWriteRequest, l.dir+"f", tftp.Options{}, netip.AddrPortFrom(netip.MustParseAddr("192.0.2.2"), uint16(2000+port)))
		}
		synctest.Wait()
		if list, err := afero.ReadDir(l.store.files, l.dir); err != nil || len(list) < maxGrantFiles {
			t.Fatalf("%d uploads are open, %v", len(list), err)
		}
		l.server.dialer = toClient
		if p := l.upload(l.dir+"f", contents(1000), tftp.Options{}); p.Op == tftp.OpError {
			t.Errorf("got %+v", p)
		}
		l.stop()
		l.server.tasks.Wait()
		if list, err := afero.ReadDir(l.store.files, l.dir); err != nil || len(list) != 1 || list[0].Size() != 1000 {
			t.Errorf("the directory holds %v, %v", list, err)
		}
	})
}
