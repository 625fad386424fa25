package agentx

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"example.com/iad/mib"
	"github.com/google/go-cmp/cmp"
	"github.com/posteo/go-agentx/pdu"
)

// FuzzDecode reads PDUs from any stream of octets. What it understands must
// come back the same after it was encoded.
func FuzzDecode(f *testing.F) {
	for _, flags := range []pdu.Flags{0, pdu.FlagNetworkByteOrder} {
		var all []byte
		for _, p := range samples() {
			p.Flags |= flags
			f.Add(encodePacket(p))
			all = append(all, encodePacket(p)...)
		}
		f.Add(all)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		for {
			var p, again packet
			err := p.read(r)
			if errors.Is(err, errMalformed) {
				continue
			}
			if err != nil {
				return
			}
			if err := again.read(bytes.NewReader(encodePacket(&p))); err != nil {
				t.Fatalf("%+v: %v", p, err)
			}
			if diff := cmp.Diff(&p, &again, samePacket); diff != "" {
				t.Fatalf("-first +second\n%s", diff)
			}
		}
	})
}

// FuzzSession plays a master to an open session: the octets are what it sends
// after the registration, in pieces of a size that the first octet says. At the
// end of the connection nothing may hold a reservation, no more SETs may have
// started than CleanupSets were sent, and no goroutine may be left.
func FuzzSession(f *testing.F) {
	root := mib.DefaultRoot
	owner := mib.Varbind{OID: root.Append(1, 5, 3, 0), Value: mib.Str("fuzz")}
	header := func(t pdu.Type, packetID uint32) pdu.Header {
		return pdu.Header{Type: t, SessionID: 77, TransactionID: 5, PacketID: packetID}
	}
	set := []*packet{
		{Header: header(pdu.TypeTestSet, 1), Varbinds: []mib.Varbind{owner}},
		{Header: header(pdu.TypeTestSet, 1), Varbinds: []mib.Varbind{owner}}, // sent again
		{Header: header(pdu.TypeCommitSet, 2)},
		{Header: header(pdu.TypeCleanupSet, 3)},
	}
	get := []*packet{
		{Header: header(pdu.TypeGet, 4), Ranges: []mib.Search{{Start: root.Append(1, 1, 1, 0)}, {Start: root}}},
		{Header: header(pdu.TypeGetNext, 5), Ranges: []mib.Search{{Start: root, End: root.Append(1, 2)}}},
		{Header: header(pdu.TypeGetBulk, 6), MaxRepetitions: 1000, Ranges: []mib.Search{{Start: root}}},
		{Header: header(pdu.TypeUndoSet, 7)},
		{Header: header(pdu.TypeClose, 8), Reason: pdu.ReasonByManager},
	}
	script := func(piece byte, packets ...*packet) []byte {
		b := []byte{piece}
		for _, p := range packets {
			b = append(b, encodePacket(p)...)
		}
		return b
	}
	f.Add(script(0, set...))
	f.Add(script(7, set...))
	f.Add(script(1, set[0], set[2], get[3], set[3]))
	f.Add(script(200, get...))
	f.Add(script(3, append(get[:3:3], set...)...))
	f.Add([]byte("\x00not AgentX"))

	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) == 0 {
			return
		}
		piece, in := int(in[0])+1, in[1:]
		d := newDevice()
		d.onTest = func(mib.Caller, []mib.Assignment) error { return nil }
		s, err := New(Config{Address: "unix:unused", Clock: newFakeClock()}, mib.NewTree(mib.NewModule(nil), d))
		if err != nil {
			t.Fatal(err)
		}
		here, there := net.Pipe()
		l := newLink(s, here)
		m := &master{t: t, conn: there, r: bufio.NewReader(there), session: 77}
		m.write = m.raw
		opened := make(chan error, 1)
		go func() { opened <- l.open(context.Background()) }()
		m.open()
		if err := <-opened; err != nil {
			t.Fatal(err)
		}
		drained := make(chan struct{})
		go func() { io.Copy(io.Discard, m.r); close(drained) }()
		for rest := in; len(rest) > 0; {
			n := min(piece, len(rest))
			if _, err := there.Write(rest[:n]); err != nil {
				break
			}
			rest = rest[n:]
		}
		there.Close()
		<-drained
		l.wait()

		if d.reserved() {
			t.Error("a reservation is left")
		}
		cleanups := 0
		var p packet
		for r := bytes.NewReader(in); ; {
			err := p.read(r)
			if err != nil && !errors.Is(err, errMalformed) {
				break
			}
			if p.Type == pdu.TypeCleanupSet {
				cleanups++
			}
		}
		if d.started > cleanups {
			t.Errorf("%d SETs started by %d CleanupSets", d.started, cleanups)
		}
	})
}
