package sim_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"example.com/iad/bank/image"
	"example.com/iad/manager/device"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

// Downloads pass a bad link, or fail as they do in a network.
func TestDownloadsOverBadLinks(t *testing.T) {
	const size = 200_000
	for _, c := range []struct {
		fault    string
		protocol mib.Protocol
		least    time.Duration
		cause    mib.FailCause
	}{
		{"linkloss,percent=5", mib.ProtocolTftp, 0, mib.FailCauseNone},
		{"linkdup,percent=50", mib.ProtocolTftp, 0, mib.FailCauseNone},
		{"linkdelay,delay=20ms,jitter=5ms", mib.ProtocolTftp, 40 * time.Millisecond, mib.FailCauseNone},
		{"linkdelay,delay=20ms", mib.ProtocolFtp, 100 * time.Millisecond, mib.FailCauseNone},
		{"linkrate,rate=400000", mib.ProtocolTftp, 400 * time.Millisecond, mib.FailCauseNone},
		{"linkrate,rate=400000", mib.ProtocolFtp, 400 * time.Millisecond, mib.FailCauseNone},
		{"reset@transferring,nth=2", mib.ProtocolFtp, 0, mib.FailCauseConnectionLost},
	} {
		t.Run(c.fault+" "+c.protocol.String(), func(t *testing.T) {
			t.Parallel()
			f, err := sim.ParseFault(c.fault)
			if err != nil {
				t.Fatal(err)
			}
			l := newLab(t, nil)
			l.device.Agent(t.Context(), 1)
			l.device.Inject(f)
			img := map[string][]byte{"fw.iad": l.build(image.Manifest{Version: "2.0.0", ConfigFormat: 1}, payload("data", string(bytes.Repeat([]byte{7}, size)), 0o644))}
			began := time.Now()
			op := l.download(c.protocol, img, "fw.iad", mib.OperationKindDownloadSoftware)
			took := time.Since(began)
			if op.Cause != c.cause || took < c.least {
				t.Errorf("%v, %v (%s) after %v, want %v after %v at least", op.State, op.Cause, op.Text, took, c.cause, c.least)
			}
		})
	}
}

// Requests and answers pass the link too.
func TestRequestsOverBadLinks(t *testing.T) {
	l := newLab(t, nil)
	c, err := device.Dial(device.Target{Address: l.device.Addr(t.Context()).String(), Timeout: 100 * time.Millisecond, Retries: 30, Credentials: device.Credentials{Read: "public", Write: "private"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ask := func() (time.Duration, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		began := time.Now()
		_, err := c.Device(ctx)
		return time.Since(began), err
	}
	l.device.Inject(sim.Fault{Kind: sim.LinkDelay, Delay: 30 * time.Millisecond})
	if took, err := ask(); err != nil || took < 60*time.Millisecond {
		t.Errorf("with a delay of 30 ms the answer came after %v, %v", took, err)
	}
	l.device.ClearFaults("")
	l.device.Inject(sim.Fault{Kind: sim.LinkLoss, Percent: 30})
	slow := false
	for range 10 {
		took, err := ask()
		if err != nil {
			t.Fatal(err)
		}
		slow = slow || took > 100*time.Millisecond
	}
	if !slow {
		t.Error("with a loss of 30 % no request was repeated")
	}
	l.device.ClearFaults("")
	l.device.Inject(sim.Fault{Kind: sim.LinkDup, Percent: 100})
	if _, err := ask(); err != nil {
		t.Errorf("with doubled datagrams: %v", err)
	}
}
