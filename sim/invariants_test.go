package sim

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/afero"

	"example.com/iad/agent"
	"example.com/iad/agent/config"
	"example.com/iad/internal/crashfs"
	"example.com/iad/mib"
)

// checkDevice holds what must be true after every start: the running software is
// whole, and so are the configuration data, in its format.
func checkDevice(a *agent.Agent, m *crashfs.Machine) error {
	st := a.View()
	v, _ := st.Value(mib.SoftwareVersion, mib.OID{0})
	version := string(v.Bytes)
	running := 0
	for n := uint32(1); n <= 2; n++ {
		if r, _ := st.Value(mib.BankRoles, mib.OID{n}); mib.HasBit(r.Bytes, mib.BankRolesRunning) {
			running = int(n)
		}
	}
	if running == 0 {
		return errors.New("no software runs: rescue mode")
	}
	for name, want := range crashSoftware(version) {
		got, err := afero.ReadFile(m.Fs(fmt.Sprintf("bank%d", running)), name)
		if err == nil && !bytes.Equal(got, want) {
			err = errors.New("differs")
		}
		if err != nil {
			return fmt.Errorf("bank %d runs %q, %s: %w", running, version, name, err)
		}
	}
	set, err := inForce(a, m)
	if err != nil {
		return err
	}
	if f, _ := set.Format(); len(set) > 0 && f != crashFormats[version] {
		return fmt.Errorf("software %s has configuration data of format %d", version, f)
	}
	if g, _ := st.Value(mib.ConfigDigest, mib.OID{0}); !bytes.Equal(g.Bytes, set.Digest()) {
		return errors.New("iadUpgConfigDigest is not that of the data in force")
	}
	return nil
}

// inForce reads the configuration data in force: one whole set of one owner.
func inForce(a *agent.Agent, m *crashfs.Machine) (config.Set, error) {
	g, _ := a.View().Value(mib.ConfigGeneration, mib.OID{0})
	set := config.Set{}
	if g.Int == 0 {
		return set, nil
	}
	var body []byte
	for _, k := range config.Kinds() {
		data, err := afero.ReadFile(m.Fs("data"), fmt.Sprintf("gen-%08d/%s", g.Int, k))
		if err != nil {
			return nil, fmt.Errorf("generation %d: %w", g.Int, err)
		}
		set[k] = data
		if body != nil && !bytes.Equal(body, config.Body(data)) {
			return nil, fmt.Errorf("generation %d is a mixture", g.Int)
		}
		body = config.Body(data)
	}
	_, err := set.Format()
	return set, err
}

// checkOutcome holds what a step promises.
func checkOutcome(a *agent.Agent, m *crashfs.Machine, c *command) error {
	v, _ := a.View().Value(mib.SoftwareVersion, mib.OID{0})
	if c.orVersion != "" && string(v.Bytes) == c.orVersion {
		return nil
	}
	if string(v.Bytes) != c.version {
		return fmt.Errorf("after %s %s runs, not %s", c.kind, v.Bytes, c.version)
	}
	set, err := inForce(a, m)
	if err != nil {
		return err
	}
	want := config.Set{}
	if c.data != "" {
		want = crashSet(crashFormats[c.version], c.data)
	}
	if !bytes.Equal(set.Digest(), want.Digest()) {
		return fmt.Errorf("after %s the data in force are %q", c.kind, set[mib.FileTypeUserData])
	}
	st := a.Engine().Snapshot().Banks
	if old := 3 - st.Running; c.givesUp() && (st.Bank(old).State != mib.BankStateFailed || st.Fallback == old) {
		return fmt.Errorf("after %s the software that was given up is in state %d, the fallback is %d", c.kind, st.Bank(old).State, st.Fallback)
	}
	return nil
}

// checkHistory holds that every operation ended once, and that no event is missing.
func checkHistory(a *agent.Agent, w *world, e *ear, script []command) error {
	if err := w.hear(e.heard()); err != nil {
		return err
	}
	if slices.ContainsFunc(script, func(c command) bool { return c.givesUp() }) && !strings.Contains(w.events, "=iadUpgRolledBack/") {
		return fmt.Errorf("no event reports that software was given up: %s", w.events)
	}
	s := a.Engine().Snapshot()
	for i, op := range s.History {
		if op.ID != uint32(i)+1 {
			return fmt.Errorf("history: operation %d at place %d", op.ID, i+1)
		}
		if n := strings.Count(w.events, fmt.Sprintf("iadUpgOpCompleted/%d ", op.ID)) +
			strings.Count(w.events, fmt.Sprintf("iadUpgOpFailed/%d ", op.ID)); n > 1 {
			return fmt.Errorf("operation %d ended %d times: %s", op.ID, n, w.events)
		}
	}
	if uint32(len(s.History)) != s.Op.ID {
		return fmt.Errorf("%d operations in the history, the last is %d", len(s.History), s.Op.ID)
	}
	for i, ev := range s.Events {
		if i > 0 && ev.Seq != s.Events[i-1].Seq+1 {
			return fmt.Errorf("event %d follows %d", ev.Seq, s.Events[i-1].Seq)
		}
		if !strings.Contains(w.events, fmt.Sprintf(" %d=", ev.Seq)) {
			return fmt.Errorf("event %d (%s) was never sent: %s", ev.Seq, ev.Type, w.events)
		}
	}
	return nil
}
