package agentx

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/iad/mib"
	"github.com/gosnmp/gosnmp"
	"github.com/posteo/go-agentx/pdu"
)

// constant is an Instrumentation that costs next to nothing, so that a
// benchmark shows the cost of the way to it.
type constant struct{}

var someText = mib.Str("some text")

func (constant) View() mib.View                               { return constant{} }
func (constant) Value(*mib.Object, mib.OID) (mib.Value, bool) { return someText, true }
func (constant) Rows(*mib.Object) []mib.OID                   { return []mib.OID{{1}, {2}} }
func (constant) Test(mib.Caller, []mib.Assignment) (mib.Transaction, error) {
	return constant{}, nil
}
func (constant) Commit() error { return nil }
func (constant) Undo() error   { return nil }
func (constant) Done()         {}

// BenchmarkSession answers requests of a master on a Unix socket, one at a
// time. The allocations are those of session and tree.
func BenchmarkSession(b *testing.B) {
	oid := mib.NewModule(nil).OID
	ten := slices.Repeat([]mib.Search{{Start: oid(mib.DeviceId, 0)}}, 10)
	for _, c := range []struct {
		name string
		pdus []packet
	}{
		{"Get", []packet{{Header: pdu.Header{Type: pdu.TypeGet}, Ranges: ten[:1]}}},
		{"Get10", []packet{{Header: pdu.Header{Type: pdu.TypeGet}, Ranges: ten}}},
		{"GetNext", []packet{{Header: pdu.Header{Type: pdu.TypeGetNext}, Ranges: ten[:1]}}},
		{"GetBulk10", []packet{{Header: pdu.Header{Type: pdu.TypeGetBulk}, MaxRepetitions: 10, Ranges: ten[:1]}}},
		{"Set", []packet{
			{Header: pdu.Header{Type: pdu.TypeTestSet}, Varbinds: []mib.Varbind{{OID: oid(mib.ReqOwner, 0), Value: mib.Str("operator")}}},
			{Header: pdu.Header{Type: pdu.TypeCommitSet}},
			{Header: pdu.Header{Type: pdu.TypeCleanupSet}},
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			ln, address := listen(b)
			s := startTree(b, Config{Address: address}, mib.NewTree(mib.NewModule(nil), constant{}))
			m := accept(b, ln)
			m.conn.SetDeadline(time.Time{})
			m.open()
			s.awaitReady()
			var requests [][]byte
			for i := range c.pdus {
				requests = append(requests, encodePacket(m.request(c.pdus[i])))
			}
			packetID := uint32(1 << 16)
			var answer packet
			b.ReportAllocs()
			for b.Loop() {
				packetID++
				for i, r := range requests {
					orderOf(0).PutUint32(r[12:], packetID+uint32(i)<<24)
					m.raw(r)
					if c.pdus[i].Type == pdu.TypeCleanupSet {
						continue
					}
					if err := answer.read(m.r); err != nil || answer.Error != 0 {
						b.Fatal(err, answer.Error)
					}
				}
			}
			m.conn.Close()
		})
	}
}

// BenchmarkFrontEnds compares, in rounds that alternate, how many requests a
// second snmpd answers from objects of its own, how many through it this package
// answers, and how many the embedded engine does. One iteration is one round
// of all three; the figures are medians.
//
//	go test -run '^$' -bench FrontEnds -benchtime 9x ./agent/agentx
func BenchmarkFrontEnds(b *testing.B) {
	master := startSnmpd(b)
	tree := mib.NewTree(mib.NewModule(nil), constant{})
	startTree(b, Config{Address: master.address}, tree).awaitReady()
	embedded := startEngineTree(b, tree)

	id := "." + tree.Module().OID(mib.DeviceId, 0).String()
	owner := "." + tree.Module().OID(mib.ReqOwner, 0).String()
	for _, c := range []struct {
		kind     gosnmp.PDUType
		clients  int
		own, our string // names asked for
		requests int    // of a client in one round
	}{
		{gosnmp.GetRequest, 1, sysContact, id, 1000},
		{gosnmp.GetRequest, 8, sysContact, id, 500},
		{gosnmp.SetRequest, 1, sysContact, owner, 30},
		{gosnmp.SetRequest, 8, sysContact, owner, 20},
	} {
		b.Run(fmt.Sprintf("%v/%d_clients", c.kind, c.clients), func(b *testing.B) {
			targets := []*load{
				newLoad(b, master.port, c.kind, c.own, c.clients),
				newLoad(b, master.port, c.kind, c.our, c.clients),
				newLoad(b, embedded, c.kind, c.our, c.clients),
			}
			rates := make([][]float64, len(targets))
			for range b.N {
				for i, l := range targets {
					rates[i] = append(rates[i], l.round(c.requests))
				}
			}
			for i := range rates {
				slices.Sort(rates[i])
			}
			median := func(i int) float64 { return rates[i][len(rates[i])/2] }
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(0), "own/s")
			b.ReportMetric(median(1), "agentx/s")
			b.ReportMetric(median(2), "embedded/s")
			b.ReportMetric(median(1)/median(0), "agentx:own")
			b.ReportMetric(median(2)/median(0), "embedded:own")
		})
	}
}

// load sends a request from several sockets, each time with another request-id,
// since the embedded engine knows repeated requests.
type load struct {
	b       *testing.B
	conns   []net.Conn
	message []byte
	want    []byte // the answer, the same but for the request-id
	last    atomic.Uint32
}

// placeholder is the request-id in message and want.
const placeholder = 0x12345678

func newLoad(b *testing.B, port uint16, kind gosnmp.PDUType, name string, clients int) *load {
	b.Helper()
	vb := gosnmp.SnmpPDU{Name: name, Type: gosnmp.Null}
	if kind == gosnmp.SetRequest {
		vb.Type, vb.Value = gosnmp.OctetString, "operator"
	}
	p := &gosnmp.SnmpPacket{
		Version: gosnmp.Version2c, Community: "private", PDUType: kind, RequestID: placeholder,
		Variables: []gosnmp.SnmpPDU{vb}, Logger: gosnmp.Logger{},
	}
	message, err := p.MarshalMsg()
	if err != nil {
		b.Fatal(err)
	}
	l := &load{b: b, message: message}
	for range clients {
		conn, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { conn.Close() })
		l.conns = append(l.conns, conn)
	}
	buf := make([]byte, 2048)
	if l.want, err = ask(l.conns[0], message, buf); err != nil {
		b.Fatal(err)
	}
	l.want = slices.Clone(l.want)
	res, err := client(b, port).SnmpDecodePacket(slices.Clone(l.want))
	if err != nil || res.Error != 0 || res.Variables[0].Type != gosnmp.OctetString {
		b.Fatalf("%s: %v, %v", name, res, err)
	}
	return l
}

func ask(conn net.Conn, message, buf []byte) ([]byte, error) {
	if _, err := conn.Write(message); err != nil {
		return nil, err
	}
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	n, err := conn.Read(buf)
	return buf[:n], err
}

// round sends requests from every socket and returns how many were answered in
// a second.
func (l *load) round(requests int) float64 {
	began := time.Now()
	var wg sync.WaitGroup
	for _, conn := range l.conns {
		wg.Go(func() {
			buf, message, want := make([]byte, 2048), slices.Clone(l.message), slices.Clone(l.want)
			at := bytes.Index(message, binary.BigEndian.AppendUint32(nil, placeholder))
			wantAt := bytes.Index(want, binary.BigEndian.AppendUint32(nil, placeholder))
			for range requests {
				id := placeholder + l.last.Add(1)
				binary.BigEndian.PutUint32(message[at:], id)
				binary.BigEndian.PutUint32(want[wantAt:], id)
				got, err := ask(conn, message, buf)
				if err != nil || !bytes.Equal(got, want) {
					l.b.Errorf("%v, % x", err, got)
					return
				}
			}
		})
	}
	wg.Wait()
	return float64(requests*len(l.conns)) / time.Since(began).Seconds()
}
