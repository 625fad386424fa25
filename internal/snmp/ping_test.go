package snmp_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"example.com/iad/internal/snmp"
)

// TestPingAsksAgain answers the second question only, and that first with a datagram of another protocol.
func TestPingAsksAgain(t *testing.T) {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const engine = "\x80\x00\x00\x01\x05engine"
	go func() {
		buf := make([]byte, 2048)
		for asked := 1; ; asked++ {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			question, err := snmp.ReadV3(buf[:n])
			switch {
			case err != nil || question.Flags != snmp.FlagReportable || len(question.EngineID) != 0:
				t.Errorf("question %d: %+v, %v", asked, question, err)
			case asked == 2:
				_, _ = conn.WriteTo([]byte("hello"), from)
			case asked == 3:
				h := snmp.Header{MsgID: question.MsgID, MaxSize: snmp.MinMaxSize, EngineID: []byte(engine)}
				report, err := snmp.SealV3(h, nil, 0, snmp.AppendScoped(nil, h.EngineID, nil, snmp.PDU{Kind: snmp.PDUReport}, nil))
				if err != nil {
					t.Error(err)
				}
				_, _ = conn.WriteTo(report, from)
			}
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := snmp.Ping(ctx, conn.LocalAddr().String(), ""); err != nil {
		t.Error(err)
	}
}

func TestPingNobody(t *testing.T) {
	silent, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := snmp.Ping(ctx, silent.LocalAddr().String(), "public"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody answers: %v", err)
	}
	silent.Close()
	if err := snmp.Ping(t.Context(), silent.LocalAddr().String(), ""); err == nil {
		t.Error("an engine answered on a closed port")
	}
}
