package agentx

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"example.com/iad/mib"
	"github.com/posteo/go-agentx/pdu"
)

// master is the other end of one connection, driven by a test step by step.
type master struct {
	t       testing.TB
	conn    net.Conn
	r       *bufio.Reader
	flags   pdu.Flags // FlagNetworkByteOrder or 0, for what it sends
	session uint32
	packet  uint32
	write   func([]byte) // sends one PDU
}

// listen returns a Unix socket for masters and its address for Config.
func listen(t testing.TB) (net.Listener, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agentx")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln, "unix:" + path
}

// accept waits for the session to dial and returns a master for it. The
// deadline only ends a test that went wrong.
func accept(t testing.TB, ln net.Listener) *master {
	t.Helper()
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	m := &master{t: t, conn: conn, r: bufio.NewReader(conn), session: 77, packet: 1000}
	m.write = m.raw
	return m
}

// raw sends bytes.
func (m *master) raw(b []byte) {
	m.t.Helper()
	if _, err := m.conn.Write(b); err != nil {
		m.t.Fatalf("master: %v", err)
	}
}

// expect reads the next PDU, which must be of type want.
func (m *master) expect(want pdu.Type) *packet {
	m.t.Helper()
	p := new(packet)
	if err := p.read(m.r); err != nil {
		m.t.Fatalf("master: waiting for %v: %v", want, err)
	}
	if p.Type != want {
		m.t.Fatalf("master: got %v, want %v", p.Type, want)
	}
	return p
}

// expectEOF reads up to the end of the connection.
func (m *master) expectEOF() {
	m.t.Helper()
	if n, err := io.Copy(io.Discard, m.r); n > 0 || errors.Is(err, context.DeadlineExceeded) {
		m.t.Fatalf("master: %d octets, %v; want the end of the connection", n, err)
	}
}

// reply answers a request of the session.
func (m *master) reply(p *packet, code pdu.Error) {
	m.t.Helper()
	m.write(encodePacket(&packet{
		Header: pdu.Header{Type: pdu.TypeResponse, Flags: m.flags, SessionID: m.session, PacketID: p.PacketID},
		Error:  code,
	}))
}

// open takes the session's Open and Register.
func (m *master) open() {
	m.t.Helper()
	m.reply(m.expect(pdu.TypeOpen), pdu.ErrorNone)
	m.reply(m.expect(pdu.TypeRegister), pdu.ErrorNone)
}

// request completes a request with the identifiers of this master, a new
// packet identifier among them.
func (m *master) request(p packet) *packet {
	m.packet++
	p.Flags |= m.flags
	p.SessionID, p.PacketID = m.session, m.packet
	return &p
}

// ask sends a request and returns the answer to it.
func (m *master) ask(p packet) *packet {
	m.t.Helper()
	req := m.request(p)
	m.write(encodePacket(req))
	return m.answerTo(req)
}

func (m *master) answerTo(req *packet) *packet {
	m.t.Helper()
	res := m.expect(pdu.TypeResponse)
	if res.PacketID != req.PacketID || res.TransactionID != req.TransactionID || res.SessionID != req.SessionID {
		m.t.Fatalf("master: answer to session %d, transaction %d, packet %d; want %d, %d, %d",
			res.SessionID, res.TransactionID, res.PacketID, req.SessionID, req.TransactionID, req.PacketID)
	}
	return res
}

// phase asks for one phase of a SET and checks the error code.
func (m *master) phase(t pdu.Type, transaction uint32, want mib.Status, vbs ...mib.Varbind) {
	m.t.Helper()
	res := m.ask(packet{Header: pdu.Header{Type: t, TransactionID: transaction}, Varbinds: vbs})
	if res.Error != pdu.Error(want) {
		m.t.Fatalf("%v: error %d, want %d", t, res.Error, want)
	}
}

// cleanup sends CleanupSet, which has no answer, and waits by a Ping until it
// was worked off.
func (m *master) cleanup(transaction uint32) {
	m.t.Helper()
	m.write(encodePacket(m.request(packet{Header: pdu.Header{Type: pdu.TypeCleanupSet, TransactionID: transaction}})))
	m.ping()
}

func (m *master) ping() {
	m.t.Helper()
	if res := m.ask(packet{Header: pdu.Header{Type: pdu.TypePing}}); res.Error != pdu.ErrorNone {
		m.t.Fatalf("Ping: error %d", res.Error)
	}
}

// encodePacket encodes any PDU.
func encodePacket(p *packet) []byte {
	o := orderOf(p.Flags)
	b := startPDU(nil, p.Header)
	if p.Flags&pdu.FlagNonDefaultContext != 0 && hasContext(p.Type) {
		b = appendOctets(b, o, p.Context)
	}
	oid := func(oid mib.OID, include bool) {
		at := len(b)
		var err error
		if b, err = appendOID(b, o, oid); err != nil {
			panic(err)
		}
		if include {
			b[at+2] = 1
		}
	}
	ranges := func() {
		for _, r := range p.Ranges {
			oid(r.Start, r.Inclusive)
			oid(r.End, false)
		}
	}
	varbinds := func() {
		for _, vb := range p.Varbinds {
			var err error
			if b, err = appendVarbind(b, o, vb); err != nil {
				panic(err)
			}
		}
	}
	switch p.Type {
	case pdu.TypeOpen:
		b = append(b, p.Timeout, 0, 0, 0)
		oid(p.OID, false)
		b = appendOctets(b, o, p.Description)
	case pdu.TypeClose:
		b = append(b, byte(p.Reason), 0, 0, 0)
	case pdu.TypeRegister, pdu.TypeUnregister:
		b = append(b, p.Timeout, p.Priority, p.RangeSubID, 0)
		oid(p.OID, false)
		if p.RangeSubID != 0 {
			b = o.AppendUint32(b, p.UpperBound)
		}
	case pdu.TypeGetBulk:
		b = o.AppendUint16(b, p.NonRepeaters)
		b = o.AppendUint16(b, p.MaxRepetitions)
		ranges()
	case pdu.TypeGet, pdu.TypeGetNext:
		ranges()
	case pdu.TypeTestSet, pdu.TypeNotify, pdu.TypeIndexAllocate, pdu.TypeIndexDeallocate:
		varbinds()
	case pdu.TypeAddAgentCaps:
		oid(p.OID, false)
		b = appendOctets(b, o, p.Description)
	case pdu.TypeRemoveAgentCaps:
		oid(p.OID, false)
	case pdu.TypeResponse:
		b = o.AppendUint32(b, p.UpTime)
		b = o.AppendUint16(b, uint16(p.Error))
		b = o.AppendUint16(b, p.Index)
		varbinds()
	}
	return finishPDU(b)
}

// start runs a session on a device's tree until the test ends, and checks
// that Run returns nil then.
func start(t testing.TB, cfg Config, d *device) *running {
	t.Helper()
	return startTree(t, cfg, mib.NewTree(mib.NewModule(nil), d))
}

func startTree(t testing.TB, cfg Config, tree *mib.Tree) *running {
	t.Helper()
	s, err := New(cfg, tree)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Session: s, t: t, cancel: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- s.Run(ctx) }()
	t.Cleanup(r.stop)
	return r
}

type running struct {
	*Session
	t      testing.TB
	cancel context.CancelFunc
	ended  chan error
}

// stop ends the session. A master that is still there is not asked: close it
// before, or let it answer.
func (r *running) stop() {
	r.t.Helper()
	r.cancel()
	r.wait()
}

func (r *running) wait() {
	r.t.Helper()
	if r.ended == nil {
		return
	}
	select {
	case err := <-r.ended:
		if err != nil {
			r.t.Errorf("Run: %v", err)
		}
	case <-time.After(20 * time.Second):
		r.t.Fatal("Run does not return")
	}
	r.ended = nil
}

// awaitReady waits until the session is open.
func (r *running) awaitReady() {
	r.t.Helper()
	select {
	case <-r.Ready():
	case <-time.After(20 * time.Second):
		r.t.Fatal("the session does not open")
	}
}
