package agent

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"example.com/iad/agent/config"
	"example.com/iad/agent/procedure"
	"example.com/iad/agent/snmp"
	"example.com/iad/bank"
	"example.com/iad/internal/durable"
	"example.com/iad/mib"
)

// Status is the state of a device as recorded on its disk.
type Status struct {
	Banks bank.Status
	// Op is the operation that is running or was the last, as journaled; its
	// progress is not.
	Op       procedure.Operation
	Restarts uint32
	Reason   mib.RestartReasonEnum
	// Managed is what managers have changed of the SNMP engine.
	Managed snmp.Changed
	// Findings lists what is damaged.
	Findings []string
}

// Peek reads the disk of a device, also while the device runs, and changes
// nothing. Of cfg it uses Banks, State and, if set, Data, Platform and SNMP.
func Peek(cfg Config) Status {
	opt := bank.Options{Loader: cfg.Loader, Banks: cfg.Banks, Partitions: cfg.Partitions, State: cfg.State, Trust: cfg.Trust}
	if cfg.Platform != nil {
		opt.Capacity = cfg.Platform.Capacity
	}
	var s Status
	s.Banks, s.Findings = bank.Peek(opt)
	data, found := durable.ReadRecord(cfg.State, "journal", journalMagic, stateVersion, procedure.CheckJournal)
	s.Findings = append(s.Findings, found...)
	last, err := procedure.ReadJournal(data)
	if err != nil {
		s.Findings = append(s.Findings, err.Error())
	}
	s.Op, s.Restarts, s.Reason = last.Op, last.Restarts, last.Reason
	s.Managed, found = peekManaged(cfg)
	s.Findings = append(s.Findings, found...)
	f, err := cfg.State.OpenFile("boot.a", os.O_RDWR, 0) //durable: nothing is written
	switch {
	case err == nil:
		_ = f.Close()
	case errors.Is(err, syscall.EROFS):
		s.Findings = append(s.Findings, "the state is read-only: what a running device has changed since then is not shown")
	}
	if board, ok := cfg.Platform.(interface {
		NotHandedOver(config.Set) []mib.FileType
	}); ok && cfg.Data != nil {
		// What cannot be read is the agent's to report.
		if g, set, err := config.Peek(cfg.Data); err == nil {
			for _, k := range board.NotHandedOver(set) {
				s.Findings = append(s.Findings, fmt.Sprintf("the %s of generation %d, which is in force, is not what the software uses", k, g.Number))
			}
		}
	}
	return s
}

// SelfTestOf returns the self-test of the software in bank n, whose signature and
// digests it checks, with the configuration data in force. It changes nothing and may
// be called while the device runs. Of cfg it uses Banks, Partitions, State, Data and Trust.
func SelfTestOf(cfg Config, n int) (SelfTest, error) {
	m, err := bank.Verify(bank.Options{Banks: cfg.Banks, Partitions: cfg.Partitions, State: cfg.State, Trust: cfg.Trust}, n)
	if err != nil {
		return SelfTest{}, err
	}
	t := SelfTest{Program: Program{Bank: n, Payload: m.SelfTest}, Version: m.Version}
	if g, _, err := config.Peek(cfg.Data); err == nil && g.Format == m.ConfigFormat {
		t.Generation = g.Number
	}
	return t, nil
}

// SetFloor sets the version floor of a device that is not running, up or down,
// "" for none. It is refused while software is on trial, one of whose starts it
// would use up.
func SetFloor(cfg Config, version string) error {
	opt := bank.Options{Loader: cfg.Loader, Banks: cfg.Banks, Partitions: cfg.Partitions, State: cfg.State, Hardware: cfg.Hardware, Log: cfg.Log}
	found, _ := bank.Peek(opt)
	for _, b := range found.Banks {
		if b.State == mib.BankStateTrial {
			return fmt.Errorf("the software in bank %d is on trial: let the device confirm it or give it up first", b.Number)
		}
	}
	b, report := bank.Boot(opt)
	if report.Restart {
		return ErrWrongBank
	}
	return b.SetFloor(version)
}
