package files

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/transfer/tftp"
)

// FuzzTFTPRequest: whatever comes to the server's port, it is understood as one request
// or none, and a client never gets more than it asked for.
func FuzzTFTPRequest(f *testing.F) {
	for _, seed := range []string{
		"", "\x00", "\x00\x01", "\x00\x01\x00\x00", "\x00\x01f\x00octet\x00", "\x00\x02f\x00OCTET\x00blksize\x001428\x00windowsize\x0064\x00",
		"\x00\x01f\x00octet\x00blksize\x0065535\x00", "\x00\x01f\x00netascii\x00tsize\x000\x00", "\x00\x02f\x00octet\x00tsize\x00-1\x00",
		"\x00\x01f\x00octet\x00timeout\x00255\x00windowsize\x0065535\x00blksize\x008\x00", "\x00\x03\x00\x01x", "\x00\x05\x00\x01no\x00",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := parseTFTPRequest(b)
		if !ok {
			return
		}
		for _, x := range []struct{ window, octets int }{{maxTFTPSendWindow, maxTFTPSendOctets}, {maxTFTPReceiveWindow, maxTFTPReceiveOctets}} {
			o := acceptTFTP(p.Options, x.window, x.octets)
			if o.Window > p.Options.Window || o.Window > x.window || o.BlockSize != p.Options.BlockSize || o.Timeout != 0 && o.Timeout != p.Options.Timeout ||
				o.Window > 1 && o.Window*max(o.BlockSize, tftp.MinBlockSize) > x.octets {
				t.Errorf("asked for %+v, accepted %+v", p.Options, o)
			}
		}
	})
}

// FuzzTFTPTransfer has a client send datagrams that make sense or do not, in the middle
// of a transfer: the transfer ends, and a file is there completely or not at all. The
// first byte of the script chooses between reading and writing; each datagram follows
// its length.
func FuzzTFTPTransfer(f *testing.F) {
	script := func(first byte, datagrams ...[]byte) []byte {
		b := []byte{first}
		for _, d := range datagrams {
			b = append(append(b, byte(len(d))), d...)
		}
		return b
	}
	data := func(n uint16, text string) []byte { return append(tftp.AppendDataHeader(nil, n), text...) }
	ack := func(n uint16) []byte { return tftp.AppendAck(nil, n) }
	f.Add(script(0, ack(0), ack(2), ack(3), ack(3)))
	f.Add(script(0, ack(0), ack(65535), ack(1), ack(1), ack(1)))
	f.Add(script(0, tftp.AppendError(nil, tftp.ErrOptions, "no\r\n\x1b[2J")))
	f.Add(script(1, data(1, "12345678"), data(2, "12345678"), data(3, "x")))
	f.Add(script(1, data(2, "12345678"), data(1, "12345678"), data(1, "x"), data(2, "")))
	f.Add(script(1, data(1, "123456789")))
	f.Add(script(1, data(0, ""), data(65535, ""), ack(1), []byte("\x00"), data(1, "")))
	f.Add(script(3, data(1, "12345678"), data(2, "")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 || len(b) > 1<<12 {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			l := newTFTPLab(t, nil, nil)
			o := tftp.Options{BlockSize: 8, Window: 2, HasSize: b[0]&2 != 0}
			if op := tftp.OpReadRequest; b[0]&1 == 0 {
				if err := afero.WriteFile(l.store.files, l.dir+"f", contents(20), 0o600); err != nil {
					t.Fatal(err)
				}
				l.request(op, l.dir+"f", o)
			} else {
				o.Size = 9
				l.request(tftp.OpWriteRequest, l.dir+"f", o)
			}
			for b = b[1:]; len(b) > 0; {
				n := min(int(b[0]), len(b)-1)
				_, _ = l.client.Write(b[1 : 1+n])
				b = b[1+n:]
				synctest.Wait()
			}
			begun := time.Now()
			l.server.tasks.Wait()
			if took := time.Since(begun); took > time.Minute {
				t.Errorf("the transfer goes on for %v", took)
			}
			list, err := afero.ReadDir(l.store.files, l.dir)
			if err != nil || len(list) > 1 || len(list) == 1 && list[0].Name() != "f" {
				t.Errorf("%v, %v in the dir", list, err)
			}
			for len(l.client.inbox) > 0 {
				if p, err := tftp.Parse(<-l.client.inbox); err != nil || len(p.Data) > 8 {
					t.Errorf("sent %+v, %v", p, err)
				}
			}
		})
	})
}
