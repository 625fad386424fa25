package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"example.com/iad/agent/config"
	"example.com/iad/internal/peers"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

// killer drives the real program through operations, with real file servers,
// and kills it.
type killer struct {
	*unit
	rnd       *rand.Rand
	client    *device.Client
	tftp      device.FileServerAddress
	ftp       device.FileServerAddress
	files     string // what both servers serve
	directory string // by FTP
	kills     int
	ops       uint32 // operations that were accepted
	events    uint32 // the last event's number that was seen
	said      map[mib.OperationKind]int
}

// Killed again and again, at random instants and in chosen phases, the device
// loses nothing. IAD_KILLS says how often, 20 times if it does not.
func TestKills(t *testing.T) {
	kills := 20
	if s := os.Getenv("IAD_KILLS"); s != "" {
		var err error
		if kills, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.MkdirTemp("", "iadkill") // others must get in: the servers drop root
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	list := filepath.Join(root, "files")
	for dir, mode := range map[string]os.FileMode{root: 0o755, list: 0o777} {
		if err := errors.Join(os.MkdirAll(dir, mode), os.Chmod(dir, mode)); err != nil {
			t.Fatal(err)
		}
	}
	tftp, ftp := peers.Tftpd(t, list), peers.Vsftpd(t, root)
	dir := t.TempDir()
	for k, data := range killSet("first") {
		if err := os.WriteFile(filepath.Join(dir, k.String()), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k := &killer{
		unit: newDevice(t, "--config-dir", dir, "--rate-limit", "8000000"),
		rnd:  rand.New(rand.NewPCG(1, uint64(kills))), files: list, directory: "files",
		tftp: device.FileServerAddress{Protocol: device.TFTP, Host: "127.0.0.1", Port: uint16(tftp.Port), Timeout: 5 * time.Second},
		ftp:  device.FileServerAddress{Protocol: device.FTP, Host: "127.0.0.1", Port: uint16(ftp.Port), Timeout: 5 * time.Second},
		said: map[mib.OperationKind]int{},
	}
	for _, version := range []string{"1.0.0", "2.0.0"} {
		if err := os.WriteFile(filepath.Join(list, version+".iad"), k.image(version, 2_000_000), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	k.start()
	k.client = k.unit.client()
	lost := 0
	for k.kills < kills {
		if err := k.round(); err != nil {
			lost++
			t.Errorf("after %d kills: %v", k.kills, err)
			break
		}
	}
	fmt.Printf("%d kills of the real process (%v), %d operations, %d events, %d losses\n", k.kills, k.said, k.ops, k.events, lost)
}

// round is an upgrade to the other version and back by command, with a kill in
// each operation.
func (k *killer) round() error {
	owner := fmt.Sprintf("set %d", k.kills)
	for kind, data := range killSet(owner) {
		if err := os.WriteFile(filepath.Join(k.files, "new-"+kind.String()), data, 0o666); err != nil {
			return err
		}
	}
	before, err := k.state()
	if err != nil {
		return err
	}
	to := map[string]string{"1.0.0": "2.0.0", "2.0.0": "1.0.0"}[before.version]
	backup := fmt.Sprintf("backup-%d-", k.kills)
	for kind := range killSet("") {
		// tftpd-hpa and vsftpd run as different users.
		name := filepath.Join(k.files, backup+kind.String())
		if err := errors.Join(os.WriteFile(name, nil, 0o666), os.Chmod(name, 0o666)); err != nil {
			return err
		}
	}
	for _, c := range []struct {
		request device.Request
		version string
		owner   string // of the configuration data
	}{
		{k.request(mib.OperationKindBackupConfig, &k.tftp, "", backup), before.version, before.owner},
		{k.request(mib.OperationKindDownloadSoftware, &k.ftp, to+".iad", "", device.ThenActivate, device.ThenReset, device.AllowDowngrade, device.Force), to, before.owner},
		{k.request(mib.OperationKindRecoverConfig, &k.ftp, "", "new-"), to, owner},
		{k.request(mib.OperationKindReset, nil, "", ""), to, owner},
		{k.request(mib.OperationKindRestoreOldSoftware, nil, "", ""), before.version, before.owner},
	} {
		if err := k.carryOut(c.request, before); err != nil {
			return fmt.Errorf("%v: %w", c.request.Kind, err)
		}
		after, err := k.state()
		if err != nil {
			return fmt.Errorf("after %v: %w", c.request.Kind, err)
		}
		if after.version != c.version || after.owner != c.owner {
			return fmt.Errorf("after %v runs %s with the data of %q, not %s with %q", c.request.Kind, after.version, after.owner, c.version, c.owner)
		}
		if c.request.Kind == mib.OperationKindBackupConfig {
			for kind, want := range killSet(before.owner) {
				got, err := os.ReadFile(filepath.Join(k.files, backup+kind.String()))
				if err != nil || !bytes.Equal(got, want) {
					return fmt.Errorf("the backup of %v is %q: %v", kind, got, err)
				}
			}
		}
	}
	return nil
}

func (k *killer) request(kind mib.OperationKind, server *device.FileServerAddress, software, prefix string, options ...device.Option) device.Request {
	r := device.Request{Kind: kind, Owner: "killer", Options: options}
	if server != nil {
		r.Server = &device.ServerRow{Index: 1, FileServerAddress: *server}
		if server.Protocol == device.FTP {
			r.Server.Path = k.directory
		}
	}
	if software != "" {
		r.Files = []device.FileRow{{Kind: mib.FileTypeSoftware, Name: software}}
	}
	if prefix != "" {
		for _, kind := range files.ConfigKinds {
			r.Files = append(r.Files, device.FileRow{Kind: kind, Name: prefix + kind.String()})
		}
	}
	return r
}

// carryOut commands an operation, kills the device in it, and commands it again
// until it has succeeded.
func (k *killer) carryOut(r device.Request, before killState) error {
	kill := true
	for range 5 {
		r.ID = device.NewReqID()
		op, err := k.client.Start(k.t.Context(), r)
		if err != nil {
			return err
		}
		k.ops++
		if op.ID != k.ops {
			return fmt.Errorf("operation %d, expected %d", op.ID, k.ops)
		}
		if kill {
			kill = false
			k.waitToKill(op)
			k.stop()
			k.kills++
			k.said[r.Kind]++
			k.unit.start()
			if _, err := k.state(); err != nil {
				return fmt.Errorf("after a kill: %w", err)
			}
		}
		if op, err = k.end(op.ID); err != nil {
			return err
		}
		switch {
		case op.State == mib.OperationStateSucceeded:
			return nil
		case op.Cause == mib.FailCauseInterrupted:
		default:
			return fmt.Errorf("%v: %v in %v: %s", op.State, op.Cause, op.Phase, op.Text)
		}
	}
	return errors.New("interrupted without a kill")
}

// waitToKill waits for a random time, or for a phase drawn at random.
func (k *killer) waitToKill(op *device.Operation) {
	phase := mib.OperationPhase(2 + k.rnd.IntN(12))
	until := time.Now().Add(time.Duration(k.rnd.IntN(400)) * time.Millisecond)
	for time.Now().Before(until) {
		now, err := k.client.Operation(k.t.Context())
		if err != nil || now.ID != op.ID || now.Final() || now.Phase == phase {
			return
		}
	}
}

// end waits for the verdict.
func (k *killer) end(id uint32) (*device.Operation, error) {
	for until := time.Now().Add(time.Minute); time.Now().Before(until); {
		op, err := k.client.Operation(k.t.Context())
		if errors.Is(err, device.ErrNoAnswer) {
			continue // restarting
		}
		if err != nil {
			return nil, err
		}
		if op.ID == id && op.Final() {
			return op, nil
		}
	}
	return nil, errors.New("no verdict")
}

// killState is what a device is.
type killState struct {
	version string
	owner   string // whom the configuration data in force name
}

// state checks what must always be true and returns what runs: whole software,
// configuration data of one owner, events without a gap.
func (k *killer) state() (killState, error) {
	ctx := k.t.Context()
	var s killState
	banks, err := k.client.Banks(ctx)
	if err != nil {
		return s, err
	}
	dev, err := k.client.Device(ctx)
	if err != nil {
		return s, err
	}
	s.version = dev.Version
	for i, b := range banks {
		if b.Running {
			if err := k.whole(filepath.Join(k.root, fmt.Sprintf("bank%d", i+1)), dev.Version); err != nil {
				return s, err
			}
		}
	}
	h := sha256.New()
	for _, kind := range config.Kinds() {
		data, err := os.ReadFile(filepath.Join(k.root, "config", fmt.Sprintf("gen-%08d", dev.Generation), kind.String()))
		if err != nil {
			return s, err
		}
		owner := string(bytes.TrimSpace(bytes.TrimPrefix(config.Body(data), []byte("owner ="))))
		if s.owner != "" && s.owner != owner {
			return s, fmt.Errorf("the configuration data are of %q and %q", s.owner, owner)
		}
		s.owner = owner
		h.Write(data)
	}
	if !bytes.Equal(h.Sum(nil), dev.ConfigDigest) {
		return s, errors.New("iadUpgConfigDigest is not that of the files in force")
	}
	events, err := k.client.Events(ctx)
	if err != nil {
		return s, err
	}
	for i, ev := range events {
		if i > 0 && ev.Seq != events[i-1].Seq+1 {
			return s, fmt.Errorf("event %d follows %d", ev.Seq, events[i-1].Seq)
		}
	}
	last := events[len(events)-1].Seq
	if last < k.events {
		return s, fmt.Errorf("the last event was %d and is %d", k.events, last)
	}
	k.events = last
	return s, nil
}

// whole compares a bank with the software that was built.
func (k *killer) whole(dir, version string) error {
	got, err := os.ReadFile(filepath.Join(dir, "firmware"))
	if err != nil {
		return err
	}
	line := []byte(version + "\n")
	if len(got) < 10*len(line) || len(bytes.ReplaceAll(got, line, nil)) != 0 {
		return fmt.Errorf("%s: the firmware of %s is not whole: %d bytes", dir, version, len(got))
	}
	return nil
}

func killSet(owner string) config.Set {
	set := config.Set{}
	for _, k := range config.Kinds() {
		set[k] = config.WithHeader(k, 1, []byte("owner = "+owner+"\n"))
	}
	return set
}
