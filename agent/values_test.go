package agent_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/iad/agent/config"
	"example.com/iad/agent/procedure"
	"example.com/iad/bank/image"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

// stopping is a file server whose transfers call then after some bytes.
type stopping struct {
	procedure.Fetcher
	after int64
	then  func() error
}

func (s *stopping) Open(ctx context.Context, server procedure.Server) (procedure.Files, error) {
	f, err := s.Fetcher.Open(ctx, server)
	return stoppingFiles{f, s}, err
}

type stoppingFiles struct {
	procedure.Files
	s *stopping
}

func (f stoppingFiles) Get(ctx context.Context, name string, offset int64) (io.ReadCloser, int64, error) {
	r, size, err := f.Files.Get(ctx, name, offset)
	if err != nil || f.s.then == nil {
		return r, size, err
	}
	return io.NopCloser(io.MultiReader(io.LimitReader(r, f.s.after), readFunc(f.s.then), r)), size, nil
}

// readFunc is a reader of nothing.
type readFunc func() error

func (f readFunc) Read([]byte) (int, error) {
	if err := f(); err != nil {
		return 0, err
	}
	return 0, io.EOF
}

// show is a value as the table of TestValues has it: labels instead of
// numbers, the time since start instead of a date, known digests by name.
func show(o *mib.Object, v mib.Value, start time.Time, digests map[string]string) string {
	switch {
	case o.IsBits:
		var names []string
		for _, e := range o.Enums {
			if mib.HasBit(v.Bytes, int(e.Number)) {
				names = append(names, e.Name)
			}
		}
		return strings.Join(names, "+")
	case len(o.Enums) > 0:
		return o.Label(v.Int)
	case o.TC == "DateAndTime":
		if t, err := mib.ParseDateAndTime(v.Bytes); err != nil || t.IsZero() {
			return fmt.Sprintf("%x", v.Bytes)
		} else {
			return t.Sub(start).String()
		}
	case o.TC == "IadUpgDigest" && len(v.Bytes) > 0:
		if name := digests[string(v.Bytes)]; name != "" {
			return name
		}
		return fmt.Sprintf("%x", v.Bytes)
	case o.Type == mib.OctetString:
		return string(v.Bytes)
	}
	return fmt.Sprint(v.Int)
}

func sum(data ...[]byte) string {
	s := sha256.Sum256(bytes.Join(data, nil))
	return string(s[:])
}

// members returns the first member of an image, the manifest, and the bytes of
// all of them.
func members(t *testing.T, img []byte) (manifest []byte, size int) {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(img)); ; {
		_, err := r.Next()
		if errors.Is(err, io.EOF) {
			return manifest, size
		}
		data, err2 := io.ReadAll(r)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		if manifest == nil {
			manifest = data
		}
		size += len(data)
	}
}

// instants are when TestValues looks: in the middle of a download, after it,
// after an operation that failed, after a restart into the new software, and
// after the return to the old one.
type instants [5]string

func always(s string) instants { return instants{s, s, s, s, s} }

// growing are the rows of a table that only grows: so many at each instant.
func growing(counts [5]int, rows string) (now instants) {
	for i, n := range counts {
		now[i] = strings.Join(strings.SplitN(rows+" |", " |", 100)[:n], " |")
	}
	return now
}

func history(rows string) instants { return growing([5]int{1, 2, 3, 4, 4}, rows) }
func events(rows string) instants  { return growing([5]int{4, 6, 8, 12, 15}, rows) }

// Every read-only object has the value that the module says, at each of the
// instants. Rows are read one after another, times since the start.
func TestValues(t *testing.T) {
	img := build(t, image.Manifest{Version: "2.0.0", ConfigFormat: 2, SelfTest: "selftest"})
	oldManifest, oldSize := members(t, factory())
	newManifest, newSize := members(t, img)
	sizes := fmt.Sprintf("%d | %d", oldSize, newSize)
	fetched := fmt.Sprint(len(img))
	set := settings(1, "name")
	var all [][]byte
	for _, k := range config.Kinds() {
		all = append(all, set[k])
	}
	digests := map[string]string{
		sum(oldManifest): "old manifest", sum(newManifest): "new manifest",
		sum(all...): "all data", sum(set[mib.FileTypeUserData]): "user data",
	}
	const never = "0000000000000000"
	want := map[*mib.Object]instants{
		mib.DeviceId:         always("IAD-0001"),
		mib.DeviceModel:      always("Four lines"),
		mib.HardwareRevision: always("IAD-4FXS"),
		mib.SoftwareVersion:  {"1.0.0", "1.0.0", "1.0.0", "2.0.0", "1.0.0"},
		mib.ConfigFormat:     {"1", "1", "1", "2", "1"},
		mib.OpKindsSupported: always("backupConfig+downloadSoftware+activate+reset+restoreOldSoftware+" +
			"recoverConfig+convertConfig+abort+confirm"),
		mib.ProtocolsSupported: always("tftp+ftp"),
		mib.SignatureRequired:  always("true"),
		mib.ResetRequired:      {"false", "true", "true", "false", "false"},
		mib.RestartCount:       {"1", "1", "1", "2", "3"},
		mib.RestartReason:      {"powerOn", "powerOn", "powerOn", "commanded", "rollback"},
		// The new software reads another format: it runs on its defaults.
		mib.ConfigGeneration: {"1", "1", "1", "0", "1"},
		mib.ConfigDigest:     {"all data", "all data", "all data", "", "all data"},
		mib.ConfigApplied:    {"0s", "0s", "0s", "2m36s", "12m56s"},
		mib.ImageFormat:      always("3"),
		mib.BackupRecipient:  always(""),
		mib.TrustSerial:      always("0"),

		mib.BankState: {"good | writing", "good | trial", "good | trial", "good | trial", "good | failed"},
		mib.BankRoles: {"running+nextBoot+fallback | ", "running+fallback | nextBoot", "running+fallback | nextBoot",
			"fallback | running+nextBoot", "running+nextBoot+fallback | "},
		mib.BankVersion:       always("1.0.0 | 2.0.0"),
		mib.BankConfigFormat:  always("1 | 2"),
		mib.BankSize:          always(sizes),
		mib.BankCapacity:      always("1048576 | 1048576"),
		mib.BankDigest:        always("old manifest | new manifest"),
		mib.BankWritten:       {"0s | " + never, "0s | 1m6s", "0s | 1m6s", "0s | 1m6s", "0s | 1m6s"},
		mib.BankTriesLeft:     {"0 | 0", "0 | 3", "0 | 3", "0 | 3", "0 | 0"},
		mib.BankError:         {"none | none", "none | none", "none | none", "none | none", "none | confirmTimeout"},
		mib.BankErrorText:     {" | ", " | ", " | ", " | ", " | not confirmed within 600 s"},
		mib.ServerPasswordSet: always("false | true | false | false"),

		mib.FileLastOpId: {"0 | 1 | 0 | 0 | 0 | 0", "2 | 1 | 0 | 0 | 0 | 0",
			"2 | 3 | 0 | 0 | 0 | 0", "2 | 3 | 0 | 0 | 0 | 0", "2 | 3 | 0 | 0 | 0 | 0"},
		mib.FileLastResult: {"none | none | none | none | none | none", "none | none | none | none | none | none",
			"none | connectionLost | none | none | none | none", "none | connectionLost | none | none | none | none",
			"none | connectionLost | none | none | none | none"},
		mib.FileLastSize: {"0 | 38 | 0 | 0 | 0 | 0", fetched + " | 38 | 0 | 0 | 0 | 0",
			fetched + " | 10 | 0 | 0 | 0 | 0", fetched + " | 10 | 0 | 0 | 0 | 0", fetched + " | 10 | 0 | 0 | 0 | 0"},
		// Of software only where a digest of the whole file is expected.
		mib.FileLastDigest: {" | user data |  |  |  | ", " | user data |  |  |  | ",
			" |  |  |  |  | ", " |  |  |  |  | ", " |  |  |  |  | "},
		mib.FileLastFormat: {"0 | 1 | 0 | 0 | 0 | 0", "0 | 1 | 0 | 0 | 0 | 0",
			"0 | 0 | 0 | 0 | 0 | 0", "0 | 0 | 0 | 0 | 0 | 0", "0 | 0 | 0 | 0 | 0 | 0"},

		mib.ReqRefusal:     {"busy", "busy", "none", "none", "none"},
		mib.ReqRefusalText: {"operation 2 (downloadSoftware) is running", "operation 2 (downloadSoftware) is running", "", "", ""},

		mib.OpId:            {"2", "2", "3", "4", "4"},
		mib.OpReqId:         {"8", "8", "9", "10", "10"},
		mib.OpOwner:         {"operator", "operator", "ems", "night shift", "night shift"},
		mib.OpKind:          {"downloadSoftware", "downloadSoftware", "recoverConfig", "reset", "reset"},
		mib.OpState:         {"running", "succeeded", "failed", "succeeded", "succeeded"},
		mib.OpPhase:         {"transferring", "switching", "transferring", "restarting", "restarting"},
		mib.OpPercent:       {"42", "100", "19", "100", "100"},
		mib.OpFile:          {"software", "software", "userData", "", ""},
		mib.OpBytesDone:     {"3000", fetched, "10", "0", "0"},
		mib.OpBytesTotal:    {fetched, fetched, "38", "0", "0"},
		mib.OpBank:          {"2", "2", "0", "0", "0"},
		mib.OpStarted:       {"1m0s", "1m0s", "1m16s", "2m16s", "2m16s"},
		mib.OpEnded:         {never, "1m6s", "1m36s", "2m36s", "2m36s"},
		mib.OpElapsed:       {"6", "6", "20", "0", "0"},
		mib.OpTimeLeft:      {"94", "0", "0", "0", "0"},
		mib.OpAttempt:       {"1", "1", "2", "1", "1"},
		mib.OpFailCause:     {"none", "none", "connectionLost", "none", "none"},
		mib.OpFailText:      {"", "", "cable cut", "", ""},
		mib.OpAdvice:        {"notApplicable", "notApplicable", "retryNow", "notApplicable", "notApplicable"},
		mib.OpLastChange:    {"6", "10", "40", "40", "20"}, // known since the last start
		mib.ConfirmTimeLeft: {"0", "0", "0", "560", "0"},

		mib.HistMax:        always("32"),
		mib.HistReqId:      history("7 | 8 | 9 | 10"),
		mib.HistOwner:      history("backup | operator | ems | night shift"),
		mib.HistKind:       history("backupConfig | downloadSoftware | recoverConfig | reset"),
		mib.HistState:      history("succeeded | succeeded | failed | succeeded"),
		mib.HistPhase:      history("verifying | switching | transferring | restarting"),
		mib.HistFailCause:  history("none | none | connectionLost | none"),
		mib.HistFailText:   history(" |  | cable cut | "),
		mib.HistAttempts:   history("1 | 1 | 2 | 1"),
		mib.HistStarted:    history("0s | 1m0s | 1m16s | 2m16s"),
		mib.HistEnded:      history("0s | 1m6s | 1m36s | 2m36s"),
		mib.HistElapsed:    history("0 | 6 | 20 | 0"),
		mib.HistBytes:      history("38 | " + fetched + " | 10 | 0"),
		mib.HistBank:       history("0 | 2 | 0 | 0"),
		mib.HistOldVersion: history("1.0.0 | 1.0.0 | 1.0.0 | 1.0.0"),
		mib.HistNewVersion: history(" | 2.0.0 |  | "),

		mib.EventType: events("restarted | started | completed | started | bankSwitched | completed | started | failed | " +
			"started | restarting | restarted | completed | restarting | rolledBack | restarted"),
		mib.EventTime: events("0s | 0s | 0s | 1m0s | 1m6s | 1m6s | 1m16s | 1m36s | " +
			"2m16s | 2m16s | 2m36s | 2m36s | 12m36s | 12m56s | 12m56s"),
		mib.EventOpId: events("0 | 1 | 1 | 2 | 2 | 2 | 3 | 3 | 4 | 4 | 4 | 4 | 0 | 2 | 0"),
		mib.EventCause: events("none | none | none | none | none | none | none | connectionLost | " +
			"none | none | none | none | none | confirmTimeout | none"),
		mib.EventText: events(" |  |  |  |  |  |  | cable cut |  |  |  |  |  | not confirmed within 600 s | "),
		mib.EventSeq:  {"4", "6", "8", "12", "15"},
	}

	server := &stopping{}
	onBench(t, func(c *sim.Config) {
		server.Fetcher, c.Fetcher = c.Fetcher, server
		c.RestartTime = 20 * time.Second
	}, func(b *bench) {
		start := time.Now()
		b.server()
		b.upload("software", img)
		look := func(instant int) {
			t.Helper()
			synctest.Wait()
			got := map[*mib.Object][]string{}
			for _, v := range b.walk() {
				o, _, _ := b.tree().Module().Lookup(v.OID)
				got[o] = append(got[o], show(o, v.Value, start, digests))
			}
			for _, o := range mib.Objects {
				w, ok := want[o]
				switch got := strings.Join(got[o], " | "); {
				case o.Access != mib.ReadOnly:
				case !ok:
					t.Errorf("the test does not know what %s must be", o.Name)
				case got != w[instant]:
					t.Errorf("instant %d: %s is %q, want %q", instant, o.Name, got, w[instant])
				}
			}
		}
		b.must(text(mib.ServerPassword, "secret", 2), num(mib.ConfirmMode, int64(mib.ConfirmModeManager)))
		b.must(num(mib.ReqId, 7), text(mib.ReqOwner, "backup"), bits(mib.ReqFiles, 1), command(backupConfig))
		time.Sleep(time.Minute)

		gate := make(chan struct{})
		server.after, server.then = 3000, func() error { <-gate; return nil }
		b.must(num(mib.ReqId, 8), text(mib.ReqOwner, "operator"), options(thenActivate), num(mib.ReqTimeLimit, 100), command(downloadSoftware))
		time.Sleep(5 * time.Second)
		b.refused(mib.InconsistentValue, mib.FailCauseBusy, command(reset))
		time.Sleep(time.Second)
		look(0)

		close(gate)
		time.Sleep(10 * time.Second)
		look(1)

		// Both attempts break, the second one 20 s after the request.
		broken, attempts := time.Now().Add(20*time.Second), 0
		server.after, server.then = 10, func() error {
			if attempts++; attempts == 2 {
				time.Sleep(time.Until(broken))
			}
			return &procedure.Failure{Code: mib.FailCauseConnectionLost, Text: "cable cut"}
		}
		b.must(num(mib.ReqId, 9), text(mib.ReqOwner, "ems"), bits(mib.ReqFiles, 1), num(mib.ReqRetries, 1), command(recoverConfig))
		time.Sleep(time.Minute)
		look(2)

		b.must(num(mib.ReqId, 10), text(mib.ReqOwner, "night shift"), command(reset))
		time.Sleep(time.Minute)
		look(3)

		time.Sleep(10 * time.Minute)
		look(4)
	})
}
