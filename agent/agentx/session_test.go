package agentx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"example.com/iad/mib"
	"github.com/google/go-cmp/cmp"
	"github.com/posteo/go-agentx/pdu"
)

const (
	minPause = 250 * time.Millisecond // the first pause after a loss
	maxPause = 750 * time.Millisecond
)

func TestAddress(t *testing.T) {
	for address, ok := range map[string]bool{
		"unix:/run/agentx.sock": true,
		"tcp:127.0.0.1:705":     true,
		"tcp:127.9.9.9:705":     true,
		"tcp:[::1]:705":         true,
		"tcp:localhost:705":     true,
		"unix:":                 false,
		"tcp:127.0.0.1":         false,
		"tcp:192.0.2.1:705":     false,
		"tcp:0.0.0.0:705":       false,
		"tcp:example.net:705":   false,
		"/run/agentx.sock":      false,
		"":                      false,
	} {
		if _, err := New(Config{Address: address}, nil); (err == nil) != ok {
			t.Errorf("%q: %v", address, err)
		}
	}
	if _, err := New(Config{Address: "tcp:127.0.0.1:705", Private: true}, nil); err == nil {
		t.Error("Private over TCP accepted")
	}
}

// TestOpen checks what a session says of itself, and that it says good-bye.
func TestOpen(t *testing.T) {
	ln, address := listen(t)
	s := start(t, Config{Address: address, Description: "test agent"}, newDevice())
	m := accept(t, ln)

	open := m.expect(pdu.TypeOpen)
	if got := string(open.Description); got != "test agent" {
		t.Errorf("Description %q", got)
	}
	if open.Timeout != 5 {
		t.Errorf("Timeout %d", open.Timeout)
	}
	if err := s.Notify(t.Context(), mib.Notice{Notification: mib.NotifyRestarted}); !errors.Is(err, ErrAway) {
		t.Errorf("Notify before the session is open: %v", err)
	}
	m.reply(open, pdu.ErrorNone)

	reg := m.expect(pdu.TypeRegister)
	if reg.SessionID != m.session {
		t.Errorf("Register for session %d, want %d", reg.SessionID, m.session)
	}
	if reg.OID.Compare(mib.DefaultRoot) != 0 || reg.Priority != 127 || reg.RangeSubID != 0 {
		t.Errorf("Register %v with priority %d, range %d", reg.OID, reg.Priority, reg.RangeSubID)
	}
	m.reply(reg, pdu.ErrorNone)
	s.awaitReady()

	s.cancel()
	unreg := m.expect(pdu.TypeUnregister)
	if unreg.OID.Compare(reg.OID) != 0 || unreg.Priority != reg.Priority {
		t.Errorf("Unregister %v with priority %d", unreg.OID, unreg.Priority)
	}
	m.reply(unreg, pdu.ErrorNone)
	cl := m.expect(pdu.TypeClose)
	if cl.Reason != pdu.ReasonShutdown {
		t.Errorf("Close for %v", cl.Reason)
	}
	m.reply(cl, pdu.ErrorNone)
	m.expectEOF()
	s.wait()
	if err := s.Notify(t.Context(), mib.Notice{Notification: mib.NotifyRestarted}); !errors.Is(err, ErrAway) {
		t.Errorf("Notify after the end: %v", err)
	}
}

// each runs a test with a master of either order of bytes, with its PDUs in
// one piece, in pieces of one byte, and behind a PDU that nobody understands.
func each(t *testing.T, test func(t *testing.T, m *master, s *running, d *device)) {
	for _, flags := range []pdu.Flags{0, pdu.FlagNetworkByteOrder} {
		for _, way := range []string{"whole", "split", "after garbage"} {
			t.Run(fmt.Sprintf("%v/%s", flags, way), func(t *testing.T) {
				ln, address := listen(t)
				d := newDevice()
				s := start(t, Config{Address: address, Clock: newFakeClock()}, d)
				m := accept(t, ln)
				m.flags = flags
				switch way {
				case "split":
					m.write = func(b []byte) {
						for i := range b {
							m.raw(b[i : i+1])
						}
					}
				case "after garbage":
					m.write = func(b []byte) {
						unknown := packet{Header: pdu.Header{Type: 99, Flags: flags, SessionID: m.session}}
						stray := packet{Header: pdu.Header{Type: pdu.TypeResponse, Flags: flags, PacketID: 99999}}
						m.raw(slices.Concat(encodePacket(&unknown), encodePacket(&stray), b))
					}
				}
				m.open()
				s.awaitReady()
				test(t, m, s, d)
			})
		}
	}
}

func TestRead(t *testing.T) {
	each(t, func(t *testing.T, m *master, s *running, d *device) {
		tree := mib.NewTree(mib.NewModule(nil), d)
		oid := func(o *mib.Object, index ...uint32) mib.OID { return tree.Module().OID(o, index...) }
		check := func(res *packet, want []mib.Varbind) {
			t.Helper()
			if res.Error != 0 || res.Index != 0 {
				t.Errorf("error %v, index %d", res.Error, res.Index)
			}
			if diff := cmp.Diff(want, res.Varbinds); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		}
		names := []mib.OID{
			oid(mib.DeviceId, 0), oid(mib.BankVersion, 2), oid(mib.BankVersion, 3), oid(mib.BankVersion, 2, 0),
			tree.Root(), oid(mib.ServerPassword, 1), oid(mib.DeviceId),
		}
		var ranges []mib.Search
		for _, n := range names {
			ranges = append(ranges, mib.Search{Start: n})
		}
		check(m.ask(packet{Header: pdu.Header{Type: pdu.TypeGet}, Ranges: ranges}), tree.Get(names))

		next := append(ranges,
			mib.Search{Start: oid(mib.DeviceId, 0), Inclusive: true},
			mib.Search{Start: oid(mib.DeviceId, 0), End: oid(mib.DeviceModel, 0)},
			mib.Search{Start: tree.Root().Append(9)},
			mib.Search{})
		check(m.ask(packet{Header: pdu.Header{Type: pdu.TypeGetNext}, Ranges: next}), tree.Next(next))

		check(m.ask(packet{Header: pdu.Header{Type: pdu.TypeGet}}), nil)
	})
}

func TestGetBulk(t *testing.T) {
	each(t, func(t *testing.T, m *master, s *running, d *device) {
		tree := mib.NewTree(mib.NewModule(nil), d)
		bulk := func(nonRepeaters, repetitions uint16, starts ...mib.OID) []mib.Varbind {
			t.Helper()
			req := packet{Header: pdu.Header{Type: pdu.TypeGetBulk}, NonRepeaters: nonRepeaters, MaxRepetitions: repetitions}
			for _, o := range starts {
				req.Ranges = append(req.Ranges, mib.Search{Start: o})
			}
			res := m.ask(req)
			if res.Error != 0 {
				t.Fatalf("error %v", res.Error)
			}
			return slices.Clone(res.Varbinds)
		}
		versions, states := tree.Module().OID(mib.BankVersion), tree.Module().OID(mib.BankState)
		var want []mib.Varbind
		want = append(want, tree.Next([]mib.Search{{Start: tree.Root()}})...)
		at := []mib.Search{{Start: versions}, {Start: states}}
		for range 2 {
			row := tree.Next(at)
			want = append(want, row...)
			at[0].Start, at[1].Start = row[0].OID, row[1].OID
		}
		if diff := cmp.Diff(want, bulk(1, 2, tree.Root(), versions, states)); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		if got := bulk(5, 9, versions); len(got) != 1 {
			t.Errorf("all are non-repeaters: %d varbinds", len(got))
		}
		if got := bulk(0, 0, versions); len(got) != 0 {
			t.Errorf("no repetition: %d varbinds", len(got))
		}
		// The walk ends once with endOfMibView, however many are asked for.
		all := bulk(0, 65535, tree.Root())
		if last := all[len(all)-1]; last.Value.Type != mib.EndOfMibView || all[len(all)-2].Value.IsException() {
			t.Errorf("a walk of %d ends with %v", len(all), last)
		}
		// A hundred columns at once are cut to what a PDU may hold.
		if got := bulk(0, 65535, slices.Repeat([]mib.OID{tree.Root()}, 100)...); len(got) < 500 {
			t.Errorf("100 walks: %d varbinds only", len(got))
		}
	})
}

// TestRefusedRequests checks that what cannot be carried out gets an answer
// that SNMP knows.
func TestRefusedRequests(t *testing.T) {
	each(t, func(t *testing.T, m *master, s *running, d *device) {
		garbled := m.request(packet{Header: pdu.Header{Type: pdu.TypeTestSet, TransactionID: 3}})
		b := encodePacket(garbled)
		b = append(b, make([]byte, 12)...) // a varbind of no type
		m.write(finishPDU(b))
		if res := m.answerTo(garbled); res.Error != pdu.Error(mib.GenErr) {
			t.Errorf("garbled TestSet: %v", res.Error)
		}
		res := m.ask(packet{Header: pdu.Header{Type: pdu.TypeGet, Flags: pdu.FlagNonDefaultContext},
			Context: []byte("other"), Ranges: []mib.Search{{Start: mib.DefaultRoot}}})
		if res.Error != pdu.Error(mib.GenErr) {
			t.Errorf("other context: %v", res.Error)
		}
		m.session++
		if res := m.ask(packet{Header: pdu.Header{Type: pdu.TypeGet}}); res.Error != pdu.Error(mib.GenErr) {
			t.Errorf("other session: %v", res.Error)
		}
		m.session--
		m.write(encodePacket(&packet{Header: pdu.Header{Type: pdu.TypeOpen, Flags: m.flags}})) // not for a subagent
		m.ping()
	})
}

func TestTooBig(t *testing.T) {
	ln, address := listen(t)
	d := newDevice()
	d.values[key(mib.OpFailText, mib.OID{0})] = mib.Octets(make([]byte, 40<<10))
	s := start(t, Config{Address: address}, d)
	m := accept(t, ln)
	m.open()
	s.awaitReady()
	big := mib.Search{Start: s.tree.Module().OID(mib.OpFailText, 0)}
	res := m.ask(packet{Header: pdu.Header{Type: pdu.TypeGet}, Ranges: []mib.Search{big, big}})
	if res.Error != pdu.Error(mib.TooBig) || res.Index != 1 || len(res.Varbinds) != 0 {
		t.Errorf("error %v, index %d, %d varbinds", res.Error, res.Index, len(res.Varbinds))
	}
	if res := m.ask(packet{Header: pdu.Header{Type: pdu.TypeGet}, Ranges: []mib.Search{big}}); res.Error != 0 {
		t.Errorf("one alone: error %v", res.Error)
	}
	m.conn.Close()
}

func TestNotify(t *testing.T) {
	each(t, func(t *testing.T, m *master, s *running, d *device) {
		notice := mib.Notice{Notification: mib.NotifyOpFailed, Varbinds: []mib.Varbind{
			{OID: s.tree.Module().OID(mib.EventSeq, 0), Value: mib.Uint32(12)},
		}}
		sent := make(chan error, 1)
		notify := func() *packet {
			go func() { sent <- s.Notify(context.Background(), notice) }()
			return m.expect(pdu.TypeNotify)
		}
		p := notify()
		want := append([]mib.Varbind{{
			OID:   mib.MustParseOID("1.3.6.1.6.3.1.1.4.1.0"),
			Value: mib.ID(s.tree.Module().NotificationOID(mib.NotifyOpFailed)),
		}}, notice.Varbinds...)
		if diff := cmp.Diff(want, p.Varbinds); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		// Requests of the master are answered meanwhile.
		m.ping()
		m.reply(p, pdu.ErrorNone)
		if err := <-sent; err != nil {
			t.Errorf("accepted: %v", err)
		}

		m.reply(notify(), pdu.ErrorRequestDenied)
		var refused *RefusedError
		if err := <-sent; !errors.As(err, &refused) || refused.Code != pdu.ErrorRequestDenied || errors.Is(err, ErrAway) {
			t.Errorf("refused: %v", err)
		}

		notify()
		m.conn.Close()
		if err := <-sent; !errors.Is(err, ErrAway) {
			t.Errorf("connection lost: %v", err)
		}
		if err := s.Notify(t.Context(), notice); !errors.Is(err, ErrAway) {
			t.Errorf("master away: %v", err)
		}
	})
}

func TestNotifyCancelled(t *testing.T) {
	ln, address := listen(t)
	s := start(t, Config{Address: address, Clock: newFakeClock()}, newDevice())
	m := accept(t, ln)
	m.open()
	s.awaitReady()
	ctx, cancel := context.WithCancel(t.Context())
	sent := make(chan error, 1)
	go func() { sent <- s.Notify(ctx, mib.Notice{Notification: mib.NotifyRestarted}) }()
	late := m.expect(pdu.TypeNotify)
	cancel()
	if err := <-sent; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	m.reply(late, pdu.ErrorNone) // nobody waits for it any more
	m.ping()
	m.conn.Close()
}

// TestReconnect loses the connection in each state that the session can be in;
// it comes back each time, and says so.
func TestReconnect(t *testing.T) {
	for name, lose := range map[string]func(m *master, s *running, c *fakeClock){
		"at once": func(m *master, s *running, c *fakeClock) { m.conn.Close() },
		"during Open": func(m *master, s *running, c *fakeClock) {
			m.expect(pdu.TypeOpen)
			m.conn.Close()
		},
		"Open refused": func(m *master, s *running, c *fakeClock) {
			m.reply(m.expect(pdu.TypeOpen), pdu.ErrorOpenFailed)
			m.expectEOF()
		},
		"Open not answered": func(m *master, s *running, c *fakeClock) {
			m.expect(pdu.TypeOpen)
			c.fire(m.t, defaultTimeout, defaultTimeout)
			m.expectEOF()
		},
		"Register refused": func(m *master, s *running, c *fakeClock) {
			m.reply(m.expect(pdu.TypeOpen), pdu.ErrorNone)
			m.reply(m.expect(pdu.TypeRegister), pdu.ErrorDuplicateRegistration)
			m.expectEOF()
		},
		"Register not answered": func(m *master, s *running, c *fakeClock) {
			m.reply(m.expect(pdu.TypeOpen), pdu.ErrorNone)
			m.expect(pdu.TypeRegister)
			c.fire(m.t, defaultTimeout, defaultTimeout)
			m.expectEOF()
		},
		"while idle": func(m *master, s *running, c *fakeClock) {
			m.open()
			s.awaitReady()
			m.conn.Close()
		},
		"closed by the master": func(m *master, s *running, c *fakeClock) {
			m.open()
			s.awaitReady()
			m.write(encodePacket(m.request(packet{Header: pdu.Header{Type: pdu.TypeClose}, Reason: pdu.ReasonShutdown})))
			m.expectEOF()
		},
		"in the middle of a PDU": func(m *master, s *running, c *fakeClock) {
			m.open()
			s.awaitReady()
			m.raw([]byte{1, 5, 0, 0, 1})
			m.conn.Close()
		},
		"not AgentX": func(m *master, s *running, c *fakeClock) {
			m.open()
			s.awaitReady()
			m.raw([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			m.expectEOF()
		},
		"Ping not answered": func(m *master, s *running, c *fakeClock) {
			m.open()
			s.awaitReady()
			c.fire(m.t, defaultPingInterval, defaultPingInterval)
			m.reply(m.expect(pdu.TypePing), pdu.ErrorNone)
			c.fire(m.t, defaultPingInterval, defaultPingInterval)
			m.expect(pdu.TypePing)
			c.fire(m.t, defaultTimeout, defaultTimeout)
			m.expectEOF()
		},
		"session forgotten": func(m *master, s *running, c *fakeClock) {
			m.open()
			s.awaitReady()
			c.fire(m.t, defaultPingInterval, defaultPingInterval)
			m.reply(m.expect(pdu.TypePing), pdu.ErrorNotOpen)
			m.expectEOF()
		},
	} {
		t.Run(name, func(t *testing.T) {
			ln, address := listen(t)
			clock := newFakeClock()
			s := start(t, Config{Address: address, Clock: clock}, newDevice())
			lose(accept(t, ln), s, clock)
			clock.fire(t, minPause, maxPause)
			m := accept(t, ln)
			m.open()
			s.awaitReady()
			m.ping()
			m.conn.Close()
		})
	}
}

// TestMasterNotReading fills the connection until writing blocks: the ping's
// time limit ends that, too.
func TestMasterNotReading(t *testing.T) {
	ln, address := listen(t)
	clock := newFakeClock()
	s := start(t, Config{Address: address, Clock: clock}, newDevice())
	m := accept(t, ln)
	m.open()
	s.awaitReady()
	// No answer is read, so that first the answers block and then the requests.
	walk := m.request(packet{Header: pdu.Header{Type: pdu.TypeGetBulk}, MaxRepetitions: 10000, Ranges: []mib.Search{{Start: mib.DefaultRoot}}})
	m.conn.SetDeadline(time.Now().Add(300 * time.Millisecond))
	for {
		walk.PacketID++
		if _, err := m.conn.Write(encodePacket(walk)); err != nil {
			break
		}
	}
	clock.fire(t, defaultPingInterval, defaultPingInterval)
	clock.fire(t, defaultTimeout, defaultTimeout)
	clock.fire(t, minPause, maxPause)
	m = accept(t, ln)
	m.open()
	s.awaitReady()
	m.conn.Close()
}

// TestBackOff checks that the pauses grow to a limit while there is no master.
func TestBackOff(t *testing.T) {
	clock := newFakeClock()
	start(t, Config{Address: "unix:" + t.TempDir() + "/nothing", Clock: clock}, newDevice())
	longest := clock.fire(t, minPause, maxPause)
	for range 20 {
		longest = max(longest, clock.fire(t, minPause, time.Hour))
	}
	if longest < 5*time.Second || longest > 15*time.Second {
		t.Errorf("the longest pause is %v, want 5 s to 15 s", longest)
	}
}

func TestTCP(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		ln, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Logf("%s: %v", host, err)
			continue
		}
		s := start(t, Config{Address: "tcp:" + ln.Addr().String()}, newDevice())
		m := accept(t, ln)
		m.open()
		s.awaitReady()
		m.ping()
		m.conn.Close()
		s.stop()
		ln.Close()
	}
}

// TestStopWithoutAnswer ends a session whose master has stopped answering.
func TestStopWithoutAnswer(t *testing.T) {
	ln, address := listen(t)
	clock := newFakeClock()
	s := start(t, Config{Address: address, Clock: clock}, newDevice())
	m := accept(t, ln)
	m.open()
	s.awaitReady()
	s.cancel()
	m.expect(pdu.TypeUnregister)
	clock.fire(t, leaveTimeout, leaveTimeout)
	s.wait()
	m.expectEOF()
}

// TestNotifyWhileLosing sends notifications from several goroutines while the
// connection comes and goes: each call returns, with nil or ErrAway.
func TestNotifyWhileLosing(t *testing.T) {
	ln, address := listen(t)
	clock := newFakeClock()
	s := start(t, Config{Address: address, Clock: clock}, newDevice())
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				err := s.Notify(context.Background(), mib.Notice{Notification: mib.NotifyRestarted})
				if err != nil && !errors.Is(err, ErrAway) {
					t.Error(err)
				}
			}
		})
	}
	for range 50 {
		m := accept(t, ln)
		m.open()
		for range 5 {
			m.reply(m.expect(pdu.TypeNotify), pdu.ErrorNone)
		}
		m.conn.Close()
		clock.fire(t, minPause, maxPause)
	}
	cancel()
	accept(t, ln).conn.Close()
	wg.Wait()
}
