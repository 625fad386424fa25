// Package iadtest has what tests of several packages share: a scripted SNMP agent, file
// servers that leave nothing running behind, and images.
package iadtest

import (
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"

	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// Peer is a scripted SNMP agent: the module's tree over plain values, with
// the lock and the repeat rule of the module, and a network that a test can
// make worse.
type Peer struct {
	t    *testing.T
	conn *net.UDPConn
	tree *mib.Tree

	mu     sync.Mutex
	values map[string]mib.Value // by object name and index
	rows   map[string][]mib.OID
	// Drop reports whether to lose the response to a request.
	Drop func(gosnmp.PDUType) bool
	// Refuse is consulted before a command is accepted.
	Refuse func() mib.FailCause
	// accepted counts commands that started an operation.
	accepted int
	// Absent reports whether a GET finds nobody who serves the module, as behind a master
	// agent.
	Absent func() bool
	// Before is called before each SET is tested.
	Before func()
}

// Script changes what the Peer does.
func (p *Peer) Script(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

// scripted returns the hooks as they are now.
func (p *Peer) scripted() (drop func(gosnmp.PDUType) bool, refuse func() mib.FailCause, before func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.Drop, p.Refuse, p.Before
}

// Started is how many commands started an operation.
func (p *Peer) Started() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

func key(o *mib.Object, index mib.OID) string { return o.Name + "." + index.String() }

func NewPeer(t *testing.T) *Peer {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	p := &Peer{t: t, conn: conn, values: make(map[string]mib.Value), rows: make(map[string][]mib.OID)}
	p.tree = mib.NewTree(mib.NewModule(nil), p)
	for _, o := range mib.Objects {
		v := mib.Value{Type: o.Type}
		if o.Default != nil {
			v = *o.Default
		}
		switch {
		case o.Kind == mib.Scalar:
			p.values[key(o, mib.OID{0})] = v
		case o.Kind == mib.Column && o.Row == mib.ServerEntry:
			for i := uint32(1); i <= 4; i++ {
				p.values[key(o, mib.OID{i})] = v
			}
		case o.Kind == mib.Column && o.Row == mib.FileEntry:
			for i := uint32(1); i <= 6; i++ {
				p.values[key(o, mib.OID{i})] = v
			}
		}
	}
	p.Put(mib.OpKind, mib.OperationKindNone.Value())
	p.Put(mib.OpState, mib.OperationStateIdle.Value())
	done := make(chan struct{})
	go p.serve(done)
	t.Cleanup(func() { conn.Close(); <-done })
	return p
}

func (p *Peer) Put(o *mib.Object, v mib.Value, index ...uint32) {
	if len(index) == 0 {
		index = []uint32{0}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.values[key(o, index)] = v
	if o.Kind == mib.Column && !slices.ContainsFunc(p.rows[o.Row.Name], func(i mib.OID) bool { return slices.Equal(i, index) }) {
		p.rows[o.Row.Name] = append(p.rows[o.Row.Name], index)
		slices.SortFunc(p.rows[o.Row.Name], mib.OID.Compare)
	}
}

func (p *Peer) Value(o *mib.Object, index ...uint32) mib.Value {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(index) == 0 {
		index = []uint32{0}
	}
	return p.values[key(o, index)]
}

// Address is where the agent is reached, HOST:PORT.
func (p *Peer) Address() string { return p.conn.LocalAddr().String() }

// Client reaches the agent with short time-outs.
func (p *Peer) Client() *device.Client {
	p.t.Helper()
	c, err := device.Dial(device.Target{
		Address: p.conn.LocalAddr().String(), Timeout: 50 * time.Millisecond, Retries: 1,
		Credentials: device.Credentials{Read: "public", Write: "private"},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	return c
}

func (p *Peer) serve(done chan<- struct{}) {
	defer close(done)
	codec := &gosnmp.GoSNMP{Version: gosnmp.Version2c}
	buf := make([]byte, 65535)
	for {
		n, from, err := p.conn.ReadFromUDP(buf)
		if err != nil {
			return
		}
		packet, err := codec.SnmpDecodePacket(slices.Clone(buf[:n]))
		if err != nil {
			p.t.Errorf("request: %v", err)
			continue
		}
		kind := packet.PDUType
		var work mib.Transaction
		packet.Variables, work = p.answer(packet)
		packet.PDUType = gosnmp.GetResponse
		out, err := packet.MarshalMsg()
		if err != nil {
			p.t.Errorf("response: %v", err)
			continue
		}
		if drop, _, _ := p.scripted(); drop == nil || !drop(kind) {
			if _, err := p.conn.WriteToUDP(out, from); err != nil {
				p.t.Errorf("response: %v", err)
			}
		}
		if work != nil {
			work.Done()
		}
	}
}

func (p *Peer) answer(packet *gosnmp.SnmpPacket) ([]gosnmp.SnmpPDU, mib.Transaction) {
	var vbs []mib.Varbind
	for _, pdu := range packet.Variables {
		vbs = append(vbs, fromPDU(p.t, pdu))
	}
	packet.Error, packet.ErrorIndex = gosnmp.NoError, 0
	switch packet.PDUType {
	case gosnmp.GetRequest:
		oids := make([]mib.OID, len(vbs))
		for i, vb := range vbs {
			oids[i] = vb.OID
		}
		p.mu.Lock()
		absent := p.Absent != nil && p.Absent()
		p.mu.Unlock()
		if absent {
			for i := range vbs {
				vbs[i].Value = mib.Value{Type: mib.NoSuchObject}
			}
			return toPDUs(vbs), nil
		}
		return toPDUs(p.tree.Get(oids)), nil
	case gosnmp.GetBulkRequest:
		var out []mib.Varbind
		for at := vbs[0].OID; len(out) < int(packet.MaxRepetitions); {
			vb := p.tree.Next([]mib.Search{{Start: at}})[0]
			out, at = append(out, vb), vb.OID
			if vb.Value.IsException() {
				break
			}
		}
		packet.NonRepeaters, packet.MaxRepetitions = 0, 0
		return toPDUs(out), nil
	case gosnmp.SetRequest:
		if packet.Community != "private" {
			packet.Error = gosnmp.NoAccess
			return packet.Variables, nil
		}
		if _, _, before := p.scripted(); before != nil {
			before()
		}
		work, refused := p.tree.Set(mib.Caller{}, vbs)
		if refused != nil {
			packet.Error, packet.ErrorIndex = gosnmp.SNMPError(refused.Status), uint8(refused.Index)
			return packet.Variables, nil
		}
		return packet.Variables, work
	}
	p.t.Errorf("unexpected %v", packet.PDUType)
	return nil, nil
}

// View implements mib.Instrumentation.
func (p *Peer) View() mib.View { return peerView{p} }

type peerView struct{ *Peer }

func (v peerView) Value(o *mib.Object, index mib.OID) (mib.Value, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	value, ok := v.values[key(o, index)]
	return value, ok
}

func (v peerView) Rows(o *mib.Object) []mib.OID {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.rows[o.Name]
}

// Test implements mib.Instrumentation.
func (p *Peer) Test(_ mib.Caller, changes []mib.Assignment) (mib.Transaction, error) {
	got := make(map[*mib.Object]mib.Assignment)
	for _, a := range changes {
		got[a.Object] = a
	}
	if lock, ok := got[mib.ReqLock]; ok && lock.Value.Int != p.Value(mib.ReqLock).Int {
		return nil, &mib.SetError{Status: mib.InconsistentValue, Index: lock.Pos}
	}
	command, commanded := got[mib.ReqCommand]
	repeat := commanded && got[mib.ReqId].Value.Int != 0 &&
		got[mib.ReqId].Value.Int == p.Value(mib.OpReqId).Int &&
		string(got[mib.ReqOwner].Value.Bytes) == string(p.Value(mib.OpOwner).Bytes) &&
		command.Value.Int == p.Value(mib.OpKind).Int
	if _, refuse, _ := p.scripted(); commanded && !repeat && refuse != nil {
		if cause := refuse(); cause != mib.FailCauseNone {
			p.Put(mib.ReqRefusal, cause.Value())
			p.Put(mib.ReqRefusalText, mib.Str("because the test wants it"))
			return nil, &mib.SetError{Status: mib.InconsistentValue, Index: command.Pos}
		}
	}
	return &peerSet{Peer: p, changes: changes, starts: commanded && !repeat}, nil
}

type peerSet struct {
	*Peer
	changes []mib.Assignment
	starts  bool
}

func (s *peerSet) Commit() error {
	for _, a := range s.changes {
		v := a.Value
		if a.Object == mib.ReqLock {
			v.Int++
		}
		if a.Object != mib.ReqCommand {
			s.Put(a.Object, v, a.Index...)
		}
		if s.starts && a.Object == mib.ReqCommand {
			s.Put(mib.OpKind, v)
		}
	}
	if s.starts {
		s.Put(mib.OpReqId, s.Value(mib.ReqId))
		s.Put(mib.OpOwner, s.Value(mib.ReqOwner))
		s.Put(mib.OpId, mib.Uint32(uint32(s.Value(mib.OpId).Int)+1))
		s.Put(mib.OpState, mib.OperationStateRunning.Value())
		s.Put(mib.OpTimeLeft, mib.Uint32(60))
		s.Script(func() { s.accepted++ })
	}
	return nil
}

func (s *peerSet) Undo() error { return errors.New("not reached") }
func (s *peerSet) Done()       {}

func fromPDU(t *testing.T, pdu gosnmp.SnmpPDU) mib.Varbind {
	t.Helper()
	vb := mib.Varbind{OID: mib.MustParseOID(pdu.Name), Value: mib.Value{Type: mib.Type(pdu.Type)}}
	switch v := pdu.Value.(type) {
	case int:
		vb.Value.Int = int64(v)
	case uint:
		vb.Value.Int = int64(v)
	case uint32:
		vb.Value.Int = int64(v)
	case []byte:
		vb.Value.Bytes = v
	case nil:
	default:
		t.Errorf("%s: value %T", pdu.Name, v)
	}
	return vb
}

func toPDUs(vbs []mib.Varbind) []gosnmp.SnmpPDU {
	var pdus []gosnmp.SnmpPDU
	for _, vb := range vbs {
		pdu := gosnmp.SnmpPDU{Name: vb.OID.String(), Type: gosnmp.Asn1BER(vb.Value.Type)}
		switch vb.Value.Type {
		case mib.Integer:
			pdu.Value = int(vb.Value.Int)
		case mib.Gauge32:
			pdu.Value = uint32(vb.Value.Int)
		case mib.OctetString:
			pdu.Value = vb.Value.Bytes
		}
		pdus = append(pdus, pdu)
	}
	return pdus
}
