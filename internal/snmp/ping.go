package snmp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"example.com/iad/mib"
)

// pingAgain is how long Ping waits before it repeats its question: UDP loses datagrams.
const pingAgain = 500 * time.Millisecond

// sysUpTime is an object that every agent has (RFC 3418).
var sysUpTime = mib.MustParseOID("1.3.6.1.2.1.1.3.0")

// Ping waits until the engine at a UDP address, HOST:PORT, answers, or ctx ends, which is noticed after half a second at most. With
// a community it asks for sysUpTime in SNMPv2c; without, it asks for the engine ID (RFC 3414 section 4), which needs no
// credentials but an engine of SNMPv3. The error for a closed port comes at once; otherwise it wraps that of ctx.
func Ping(ctx context.Context, address, community string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	const id = 1
	p := PDU{Kind: PDUGet, RequestID: id}
	request := AppendCommunityMessage(nil, Version2c, community, p, EncodeVars([]mib.Varbind{{OID: sysUpTime, Value: mib.Value{Type: mib.Null}}}))
	if community == "" {
		h := Header{MsgID: id, MaxSize: MinMaxSize, Flags: FlagReportable}
		if request, err = SealV3(h, nil, 0, AppendScoped(nil, nil, nil, p, nil)); err != nil {
			return err
		}
	}
	buf := make([]byte, 2048)
	for ctx.Err() == nil {
		deadline := time.Now().Add(pingAgain)
		if end, ok := ctx.Deadline(); ok && end.Before(deadline) {
			deadline = end
		}
		if err := conn.SetReadDeadline(deadline); err != nil {
			return err
		}
		if _, err := conn.Write(request); err != nil {
			return err
		}
		n, err := conn.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		} else if err != nil {
			return err
		}
		if community == "" {
			if m, err := ReadV3(buf[:n]); err == nil && m.MsgID == id && len(m.EngineID) >= MinEngineID {
				return nil
			}
		} else if _, answer, err := ReadCommunityMessage(buf[:n]); err == nil && answer.Kind == PDUResponse && answer.RequestID == id {
			return nil
		}
	}
	return fmt.Errorf("%s: no answer from an SNMP engine: %w", address, context.Cause(ctx))
}
