package manager_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/afero"

	"example.com/iad/agent"
	"example.com/iad/internal/clock"
	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

// detour is the lab's file server, with an address that is wrong at some
// times it is used: 1 is the backup, 2 the download, 3 the recovery, if every
// step is taken once.
type detour struct {
	*files.Servers
	wrong map[int]device.FileServerAddress
	// lie is how often a wrong digest is reported.
	lie int
	// withhold reports no digest.
	withhold bool
}

func (d *detour) Open(p device.Protocol, deviceID, target string) (files.Session, error) {
	s, err := d.Servers.Open(p, deviceID, target)
	return &detourSession{Session: s, detour: d}, err
}

type detourSession struct {
	files.Session
	detour *detour
	uses   int
}

func (s *detourSession) Address() device.FileServerAddress {
	s.uses++
	if a, ok := s.detour.wrong[s.uses]; ok {
		return a
	}
	return s.Session.Address()
}

func (s *detourSession) Digest(ctx context.Context, dir, name string) (int64, []byte, error) {
	if s.detour.withhold {
		return 0, nil, fmt.Errorf("%w: 550 so says the server", files.ErrNoDigest)
	}
	size, digest, err := s.Session.Digest(ctx, dir, name)
	if s.detour.lie > 0 {
		s.detour.lie--
		digest = bytes.Repeat([]byte{1}, 32)
	}
	return size, digest, err
}

// silent is a TFTP server that never answers.
func silent(t *testing.T) device.FileServerAddress {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return tftpAt(conn.LocalAddr(), 600*time.Second)
}

// absent is a TFTP server that is not there.
func absent(t *testing.T) device.FileServerAddress {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	return tftpAt(conn.LocalAddr(), time.Second)
}

func tftpAt(a net.Addr, timeout time.Duration) device.FileServerAddress {
	return device.FileServerAddress{Protocol: device.TFTP, Host: "127.0.0.1", Port: uint16(a.(*net.UDPAddr).Port), Timeout: timeout}
}

// fastClock lets the manager's time pass faster than the device's.
type fastClock struct{ factor int }

func (c fastClock) Now() time.Time { return time.Now() }

func (c fastClock) NewTimer(d time.Duration) clock.Timer {
	return fastTimer{time.NewTimer(d / time.Duration(c.factor)), c.factor}
}

type fastTimer struct {
	*time.Timer
	factor int
}

func (t fastTimer) C() <-chan time.Time        { return t.Timer.C }
func (t fastTimer) Reset(d time.Duration) bool { return t.Timer.Reset(d / time.Duration(t.factor)) }

// route is one way through the procedure.
type route struct {
	name    string
	options labOptions
	// change alters the lab and the plan before the procedure.
	change func(*lab, *manager.Plan)
	// answers are the operator's.
	answers func(*lab) []manager.Answer
	// steps are those that are to begin, in order.
	steps []manager.Step
	// version and format are what the device has at the end.
	version string
	format  uint32
	// fails: the procedure ends with an error; cause is the one that the
	// operator was shown first, 0 for no question.
	fails bool
	cause mib.FailCause
	// timedOut: it was the time limit.
	timedOut bool
}

func answer(choices ...manager.Choice) func(*lab) []manager.Answer {
	return func(*lab) []manager.Answer {
		var list []manager.Answer
		for _, c := range choices {
			list = append(list, manager.Answer{Choice: c})
		}
		return list
	}
}

// wrongServer gives the device a server that is absent, or silent for longer
// than the step may take, at one use.
func wrongServer(use int, isSilent bool) func(*lab, *manager.Plan) {
	return func(l *lab, p *manager.Plan) {
		address := absent(l.t)
		if isSilent {
			address = silent(l.t)
			p.Clock = fastClock{20}
			p.Limits = manager.Limits{Backup: 10 * time.Second, Update: 10 * time.Second, Recover: 10 * time.Second}
			p.Poll, p.Reserve = 2*time.Second, 10*time.Second
		}
		p.Files = &detour{Servers: l.servers, wrong: map[int]device.FileServerAddress{use: address}}
	}
}

func failing(version string) func(*lab, *manager.Plan) {
	return func(l *lab, _ *manager.Plan) { l.failTest[version] = true }
}

// modifier counts its calls and writes what a test asks for.
type modifier struct {
	calls []manager.Modification
	write func(call int, kind string, body []byte) []byte
}

func (m *modifier) Modify(_ context.Context, mod manager.Modification) error {
	m.calls = append(m.calls, mod)
	if err := files.SetFormat(mod.Files, mod.Draft, mod.To); err != nil {
		return err
	}
	list, err := afero.ReadDir(mod.Files, mod.Draft)
	if err != nil {
		return err
	}
	for _, info := range list {
		name := path.Join(mod.Draft, info.Name())
		data, err := afero.ReadFile(mod.Files, name)
		if err == nil {
			err = afero.WriteFile(mod.Files, name, m.write(len(m.calls), strings.TrimSuffix(info.Name(), ".cfg"), data), 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// right appends a line that format 2 allows; wrongAt spoils one file at the
// calls named.
func writing(wrongAt ...int) func(int, string, []byte) []byte {
	return func(call int, kind string, body []byte) []byte {
		if kind == "portData" && slices.Contains(wrongAt, call) {
			return append(body, "this is no setting\n"...)
		}
		body = bytes.ReplaceAll(body, []byte("this is no setting\n"), nil)
		return append(body, "by = hand\n"...)
	}
}

func modifiedBy(first bool, wrongAt ...int) func(*lab, *manager.Plan) {
	return func(_ *lab, p *manager.Plan) {
		p.Modifier, p.ModifyFirst = &modifier{write: writing(wrongAt...)}, first
	}
}

func noConverter(_ *lab, c *sim.Config) {
	c.Hooks.Convert = func(context.Context, agent.Conversion, afero.Fs) error { return errors.New("line 7 is a mystery") }
}

func join(parts ...[]manager.Step) []manager.Step { return slices.Concat(parts...) }

var (
	backUp   = []manager.Step{100, 110, 120}
	update   = []manager.Step{130, 140, 150}
	recovery = []manager.Step{170, 180, 190}
)

// routes take every arrow of the diagram in docs/procedure.md; docs/iadms.md has a
// table of them.
var routes = []route{
	{name: "120 failure, operator says yes", change: wrongServer(1, false), answers: answer(manager.Retry),
		steps: join([]manager.Step{100, 110}, wholeWay), version: "2.0.0", format: 2, cause: mib.FailCauseServerUnreachable},
	{name: "120 failure, notification lost", options: labOptions{noNotifications: true}, change: wrongServer(1, false), answers: answer(manager.Retry),
		steps: join([]manager.Step{100, 110}, wholeWay), version: "2.0.0", format: 2, cause: mib.FailCauseServerUnreachable},
	{name: "120 failure, operator says no", change: wrongServer(1, false), answers: answer(manager.GiveUp),
		steps: []manager.Step{100, 110}, version: "1.0.0", format: 1, fails: true, cause: mib.FailCauseServerUnreachable},
	{name: "120 time limit passed", change: wrongServer(1, true), answers: answer(manager.Retry),
		steps: join([]manager.Step{100, 110}, wholeWay), version: "2.0.0", format: 2, cause: mib.FailCauseDeadlineExceeded, timedOut: true},
	{name: "120 digests differ", change: func(l *lab, p *manager.Plan) { p.Files = &detour{Servers: l.servers, lie: 1} }, answers: answer(manager.Retry),
		steps: join(backUp, wholeWay), version: "2.0.0", format: 2, cause: mib.FailCauseDigestMismatch},

	{name: "150 failure of the download, operator says yes", change: wrongServer(2, false), answers: answer(manager.Retry),
		steps: join(backUp, []manager.Step{130, 140, 160}, update, recovery), version: "2.0.0", format: 2, cause: mib.FailCauseServerUnreachable},
	{name: "150 failure, operator says no", change: failing("2.0.0"), answers: answer(manager.GiveUp),
		steps: join(backUp, []manager.Step{130, 140, 160}), version: "1.0.0", format: 1, fails: true, cause: mib.FailCauseSelfTestFailed},
	{name: "150 failure, corrected file name", change: failing("2.0.0"),
		answers: func(l *lab) []manager.Answer {
			return []manager.Answer{{Choice: manager.OtherFile, Image: l.image("2.0.1", 2)}}
		},
		steps: join(backUp, []manager.Step{130, 140, 160}, update, recovery), version: "2.0.1", format: 2, cause: mib.FailCauseSelfTestFailed},
	{name: "150 failure, notifications lost", options: labOptions{noNotifications: true}, change: failing("2.0.0"), answers: answer(manager.GiveUp),
		steps: join(backUp, []manager.Step{130, 140, 160}), version: "1.0.0", format: 1, fails: true, cause: mib.FailCauseSelfTestFailed},
	{name: "150 time limit passed", change: wrongServer(2, true), answers: answer(manager.Retry),
		steps: join(backUp, []manager.Step{130, 140, 160}, update, recovery), version: "2.0.0", format: 2, cause: mib.FailCauseDeadlineExceeded, timedOut: true},
	{name: "150 operator's own check, step 160 by command, 130 again", answers: answer(manager.Retry),
		change: func(_ *lab, p *manager.Plan) {
			checks := 0
			p.Verify = func(_ context.Context, d *device.Device) error {
				if checks++; checks == 1 {
					return fmt.Errorf("%s has no ring tone", d.Version)
				}
				return nil
			}
		},
		steps: join(backUp, update, []manager.Step{160}, update, recovery), version: "2.0.0", format: 2, cause: mib.FailCauseOther},

	{name: "130 no reset needed", options: labOptions{noReset: true},
		change: func(l *lab, p *manager.Plan) { p.Image = l.open("fw.iad", l.build("2.0.0", 2, true)) },
		steps:  wholeWay, version: "2.0.0", format: 2},
	{name: "130 reset by a command of its own",
		change: func(l *lab, p *manager.Plan) { p.Image = l.open("fw.iad", l.build("2.0.0", 2, true)) },
		steps:  join(backUp, []manager.Step{130, 140, 130, 140, 150}, recovery), version: "2.0.0", format: 2},

	{name: "170 no conversion needed", change: func(l *lab, p *manager.Plan) { p.Image = l.image("1.1.0", 1) },
		steps: wholeWay, version: "1.1.0", format: 1},
	{name: "170 modified by the operator", change: modifiedBy(true), steps: wholeWay, version: "2.0.0", format: 2},
	{name: "190 wrong modification, back to the modification", change: modifiedBy(true, 1), answers: answer(manager.Modify),
		steps: join(backUp, update, []manager.Step{170, 180}, recovery), version: "2.0.0", format: 2, cause: mib.FailCauseConfigParseError},
	{name: "190 conversion on the device fails, operator modifies", options: labOptions{configure: noConverter}, change: modifiedBy(false), answers: answer(manager.Modify),
		steps: join(backUp, update, []manager.Step{170, 180}, recovery), version: "2.0.0", format: 2, cause: mib.FailCauseConvertFailed},
	{name: "190 failure, operator says yes", change: wrongServer(3, false), answers: answer(manager.Retry),
		steps: join(backUp, update, []manager.Step{170, 180}, recovery), version: "2.0.0", format: 2, cause: mib.FailCauseServerUnreachable},
	{name: "190 failure, notifications lost", options: labOptions{noNotifications: true}, change: wrongServer(3, false), answers: answer(manager.Retry),
		steps: join(backUp, update, []manager.Step{170, 180}, recovery), version: "2.0.0", format: 2, cause: mib.FailCauseServerUnreachable},
	{name: "190 failure, operator says no", change: wrongServer(3, false), answers: answer(manager.GiveUp),
		steps: join(backUp, update, []manager.Step{170, 180}), version: "2.0.0", format: 2, fails: true, cause: mib.FailCauseServerUnreachable},
	{name: "190 time limit passed", change: wrongServer(3, true), answers: answer(manager.Retry),
		steps: join(backUp, update, []manager.Step{170, 180}, recovery), version: "2.0.0", format: 2, cause: mib.FailCauseDeadlineExceeded, timedOut: true},
	{name: "190 failure, back to the old software", change: wrongServer(3, false), answers: answer(manager.RestoreOld),
		steps: join(backUp, update, []manager.Step{170, 180, 160}), version: "1.0.0", format: 1, fails: true, cause: mib.FailCauseServerUnreachable},
}

func TestProcedure(t *testing.T) {
	for _, f := range routes {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, f.options)
			before, err := l.client.Device(l.ctx)
			if err != nil {
				t.Fatal(err)
			}
			plan := l.plan(l.image("2.0.0", 2))
			if f.change != nil {
				f.change(l, &plan)
			}
			operator := &scripted{t: t}
			if f.answers != nil {
				operator.answers = f.answers(l)
			}
			result, err := manager.Upgrade(l.ctx, plan, operator, l.observe)
			if (err != nil) != f.fails {
				t.Errorf("ended with %v", err)
			}
			if diff := cmp.Diff(f.steps, l.steps()); diff != "" {
				t.Errorf("steps (-want +got):\n%s", diff)
			}
			if len(operator.answers) > 0 {
				t.Errorf("%d answers were not asked for", len(operator.answers))
			}
			f.checkCause(t, operator)
			if f.version != "1.0.0" || len(f.steps) > 2 {
				l.checkBackup(result)
			}
			after, err := l.client.Device(l.ctx)
			if err != nil {
				t.Fatal(err)
			}
			if after.Version != f.version || result.NewVersion != f.version || after.ConfigFormat != f.format {
				t.Errorf("runs %s (result: %s), format %d; want %s, format %d", after.Version, result.NewVersion, after.ConfigFormat, f.version, f.format)
			}
			if f.version == "1.0.0" && (after.Generation != before.Generation || !bytes.Equal(after.ConfigDigest, before.ConfigDigest)) {
				t.Errorf("old software with generation %d, before: %d", after.Generation, before.Generation)
			}
			if f.version != "1.0.0" && !f.fails && after.Generation == 0 {
				t.Error("new software without configuration data")
			}
		})
	}
}

func (f *route) checkCause(t *testing.T, operator *scripted) {
	t.Helper()
	if f.cause == 0 {
		if len(operator.asked) > 0 {
			t.Errorf("the operator was asked about %v", operator.asked[0].Failure)
		}
		return
	}
	var failure *manager.Failure
	if len(operator.asked) == 0 || !errors.As(operator.asked[0].Failure, &failure) || failure.Cause != f.cause || failure.TimedOut != f.timedOut {
		t.Errorf("the operator was shown %+v, want cause %v, timed out %v", failure, f.cause, f.timedOut)
	}
}
