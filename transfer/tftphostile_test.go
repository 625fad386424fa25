package transfer_test

import (
	"testing"
	"time"

	"example.com/iad/mib"
	"example.com/iad/transfer/tftp"
)

// TestTFTPHostile: a server that sends nothing useful is given up after the
// time-out.
func TestTFTPHostile(t *testing.T) {
	t.Parallel()
	until := func(s *scripted, f func()) {
		for end := time.Now().Add(40 * time.Second); time.Now().Before(end); {
			f()
			if p, ok := s.next(5 * time.Millisecond); ok && p.Op == tftp.OpError {
				return
			}
		}
		t.Error("the client did not give up")
	}
	for name, c := range map[string]struct {
		script func(*scripted)
		want   mib.FailCause
	}{
		"silence": {func(s *scripted) {}, mib.FailCauseServerUnreachable},
		"silence after options": {func(s *scripted) {
			s.accept(tftp.Options{Window: 4})
			s.next(time.Second)
			for ok := true; ok; {
				_, ok = s.next(2 * time.Second)
			}
		}, mib.FailCauseServerUnreachable}, // at the end it does not even take requests
		"wrong blocks": {func(s *scripted) {
			n := 1
			s.data(1, block(1, 512))
			until(s, func() { n += 7; s.data(n%30000+100, block(n, 512)) })
		}, mib.FailCauseTransferTimeout},
		"old blocks": {func(s *scripted) {
			s.data(1, block(1, 512))
			until(s, func() { s.data(1, block(1, 512)) })
		}, mib.FailCauseTransferTimeout},
		"old blocks in a window": {func(s *scripted) {
			s.accept(tftp.Options{Window: 4})
			s.wantAck(0)
			until(s, func() { s.data(1, block(1, 512)); s.data(3, block(3, 512)) })
		}, mib.FailCauseTransferTimeout},
		"noise in a window": {func(s *scripted) {
			s.accept(tftp.Options{Window: 4})
			s.wantAck(0)
			s.data(1, block(1, 512))
			until(s, func() { s.send([]byte{0, 99, 1, 2, 3, 4}); s.send([]byte{0}); s.send(nil) })
		}, mib.FailCauseTransferTimeout},
		"noise": {func(s *scripted) {
			s.data(1, block(1, 512))
			until(s, func() { s.send([]byte{0, 99, 1, 2, 3, 4}); s.send([]byte{0}); s.send(nil) })
		}, mib.FailCauseTransferTimeout},
		"endless options": {func(s *scripted) {
			s.data(1, block(1, 512))
			until(s, func() { s.accept(tftp.Options{Window: 1}) })
		}, mib.FailCauseTransferTimeout},
		"large block": {func(s *scripted) { s.data(1, block(1, 2000)); s.next(time.Second) }, mib.FailCauseProtocolError},
		"large block in a window": {func(s *scripted) {
			s.accept(tftp.Options{Window: 4})
			s.wantAck(0)
			s.data(1, block(1, 512))
			s.data(2, block(2, 513))
			s.next(time.Second)
		}, mib.FailCauseProtocolError},
		"ack for a read": {func(s *scripted) { s.ack(1); s.next(time.Second) }, mib.FailCauseProtocolError},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begin := time.Now()
			_, _, err := fetch(testContext(t), scriptTFTP(t, c.script).client(t, soon), "file")
			wantCause(t, err, c.want)
			if d := time.Since(begin); d > 30*time.Second {
				t.Errorf("it took %v", d)
			}
		})
	}
}
