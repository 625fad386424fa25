package tftp_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/iad/transfer/tftp"
)

func TestRoundTrip(t *testing.T) {
	all := tftp.Options{BlockSize: 1428, Window: 64, Timeout: 1, HasSize: true, Size: 1 << 40}
	for name, x := range map[string]struct {
		packet []byte
		want   tftp.Packet
	}{
		"read request": {
			tftp.AppendRequest(nil, tftp.OpReadRequest, "dir/ä b", all),
			tftp.Packet{Op: tftp.OpReadRequest, Filename: "dir/ä b", Mode: "octet", Options: all},
		},
		"write request without options": {
			tftp.AppendRequest(nil, tftp.OpWriteRequest, "f", tftp.Options{}),
			tftp.Packet{Op: tftp.OpWriteRequest, Filename: "f", Mode: "octet"},
		},
		"option acknowledgement": {tftp.AppendOptionAck(nil, all), tftp.Packet{Op: tftp.OpOptionAck, Options: all}},
		"data":                   {append(tftp.AppendDataHeader(nil, 65535), "xyz"...), tftp.Packet{Op: tftp.OpData, Block: 65535, Data: []byte("xyz")}},
		"empty data":             {tftp.AppendDataHeader(nil, 1), tftp.Packet{Op: tftp.OpData, Block: 1, Data: []byte{}}},
		"acknowledgement":        {tftp.AppendAck(nil, 256), tftp.Packet{Op: tftp.OpAck, Block: 256}},
		"error": {
			tftp.AppendError(nil, tftp.ErrDiskFull, "full\x00hidden"),
			tftp.Packet{Op: tftp.OpError, Code: tftp.ErrDiskFull, Message: "full"},
		},
		"error without its final zero": {[]byte("\x00\x05\x00\x01gone"), tftp.Packet{Op: tftp.OpError, Code: 1, Message: "gone"}},
		"options in capitals and unknown ones": {
			[]byte("\x00\x01f\x00OCTET\x00BLKSIZE\x00512\x00multicast\x00x\x00"),
			tftp.Packet{Op: tftp.OpReadRequest, Filename: "f", Mode: "octet", Options: tftp.Options{BlockSize: 512}},
		},
	} {
		got, err := tftp.Parse(x.packet)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(x.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, s := range []string{
		"", "\x00", "\x00\x03\x00", "\x00\x00\x00\x00", "\x00\x07\x00\x00", "\x00\x01f\x00octet", "\x00\x01\x00octet\x00", "\x00\x01fo",
		"\x00\x06blksize\x007\x00", "\x00\x06blksize\x0065465\x00", "\x00\x06windowsize\x000\x00", "\x00\x06timeout\x00256\x00",
		"\x00\x06tsize\x00-1\x00", "\x00\x06tsize\x0099999999999999999999\x00", "\x00\x06blksize\x00512", "\x00\x06blksize\x00",
		"\x00\x06" + strings.Repeat("a\x00b\x00", 1000), "\x00\x01" + strings.Repeat("f", 2000) + "\x00octet\x00",
	} {
		if p, err := tftp.Parse([]byte(s)); !errors.Is(err, tftp.ErrMalformed) {
			t.Errorf("%.40q gives %v, %v, want ErrMalformed", s, p, err)
		}
	}
}

func TestUnwrap(t *testing.T) {
	for _, x := range []struct {
		near  int64
		block uint16
		want  int64
	}{
		{1, 0, 0}, {0, 0, 0}, {65535, 0, 65536}, {65536, 65535, 65535}, {65536, 1, 65537}, {1 << 33, 2, 1<<33 + 2}, {1, 65535, -1}, {100_000, 34_464, 100_000},
	} {
		if got := tftp.Unwrap(x.near, x.block); got != x.want {
			t.Errorf("Unwrap(%d, %d) is %d, want %d", x.near, x.block, got, x.want)
		}
	}
}

// FuzzParse: whatever arrives, the parser neither panics nor hands out what
// could not be sent; what it accepts survives being written and read again.
func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := tftp.Parse(b)
		if err != nil {
			if !errors.Is(err, tftp.ErrMalformed) {
				t.Errorf("error %v does not wrap ErrMalformed", err)
			}
			return
		}
		o := p.Options
		if o.BlockSize != 0 && (o.BlockSize < tftp.MinBlockSize || o.BlockSize > tftp.MaxBlockSize) || o.Window < 0 || o.Window > tftp.MaxWindow ||
			o.Timeout < 0 || o.Timeout > tftp.MaxTimeout || o.Size < 0 {
			t.Errorf("options out of range: %+v", o)
		}
		var again []byte
		switch p.Op {
		case tftp.OpReadRequest, tftp.OpWriteRequest:
			again, p.Mode = tftp.AppendRequest(nil, p.Op, p.Filename, o), tftp.ModeOctet
		case tftp.OpOptionAck:
			if again = tftp.AppendOptionAck(nil, o); len(again) < 4 {
				return // nothing but options that are not known
			}
		case tftp.OpData:
			again = append(tftp.AppendDataHeader(nil, p.Block), p.Data...)
		case tftp.OpAck:
			again = tftp.AppendAck(nil, p.Block)
		case tftp.OpError:
			again = tftp.AppendError(nil, p.Code, p.Message)
		}
		q, err := tftp.Parse(again)
		if err != nil {
			t.Fatalf("written again: %v", err)
		}
		if diff := cmp.Diff(p, q); diff != "" {
			t.Errorf("written again: %s", diff)
		}
	})
}

func BenchmarkParseData(b *testing.B) {
	packet := append(tftp.AppendDataHeader(nil, 7), make([]byte, 1428)...)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tftp.Parse(packet); err != nil {
			b.Fatal(err)
		}
	}
}
