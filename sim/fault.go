package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/iad/mib"
)

// Fault is something that goes wrong in a device.
type Fault struct {
	Kind FaultKind
	// Phase and Operation restrict the fault to a phase and a kind of operation; 0 for any.
	Phase     mib.OperationPhase
	Operation mib.OperationKind
	// Nth is the occasion on which it happens first, counted from 1; 0 is 1.
	Nth int
	// Times is how often it happens; 0 is what is usual for the kind, see FaultInfo.Once.
	Times int
	// For is how long it lasts from when it was injected; 0 for no limit.
	For time.Duration
	// Delay is how long it delays, for kinds that do; 0 for FaultInfo.Delay.
	Delay time.Duration
	// At is the percentage of the bytes of the phase that has to be done first, for PowerCut.
	At int
	// Write is the write to the disk, counted from 1, in the middle of which the power
	// fails, for PowerCut; 0 for none.
	Write int
	// Unsynced is what a PowerCut does to what was written and not synced: UnsyncedKept,
	// UnsyncedLost or UnsyncedMixed. Empty for UnsyncedMixed with Write, else UnsyncedKept.
	// Disks in directories keep everything.
	Unsynced string
	// Percent of the datagrams, for LinkLoss and LinkDup, 1 to 100; 0 for 10.
	Percent int
	// Rate in bytes per second, for LinkRate; 0 for 64,000.
	Rate int
	// Jitter is by how much a LinkDelay varies, up or down.
	Jitter time.Duration
	// By is how much the clock is ahead, negative if it is behind, for WrongClock; 0 for a
	// clock that begins in 1970.
	By time.Duration
}

// What a power cut does to what was not synced.
const (
	UnsyncedKept  = "kept"  // all of it is on the disk
	UnsyncedLost  = "lost"  // none of it is
	UnsyncedMixed = "mixed" // writes are left in any combination and order, some in part
)

// unsynced is what the power cut does to what was not synced.
func (f *Fault) unsynced() string {
	if f.Unsynced == "" && f.Write > 0 {
		return UnsyncedMixed
	}
	return f.Unsynced
}

// FaultKind is a kind of fault.
type FaultKind string

// Kinds of faults; FaultInfos describes them.
const (
	Stall         FaultKind = "stall"
	Corrupt       FaultKind = "corrupt"
	Truncate      FaultKind = "truncate"
	Refuse        FaultKind = "refuse"
	Silent        FaultKind = "silent"
	Slow          FaultKind = "slow"
	Wrong         FaultKind = "wrong"
	LostTraps     FaultKind = "losttraps"
	DoubleTraps   FaultKind = "duptraps"
	LateTraps     FaultKind = "latetraps"
	ReorderTraps  FaultKind = "reordertraps"
	SelfTest      FaultKind = "selftest"
	SelfTestHangs FaultKind = "selftesthangs"
	Convert       FaultKind = "convert"
	ConvertHalf   FaultKind = "converthalf"
	DiskFull      FaultKind = "diskfull"
	ReadOnly      FaultKind = "readonly"
	DiskSlow      FaultKind = "diskslow"
	LinkDelay     FaultKind = "linkdelay"
	LinkLoss      FaultKind = "linkloss"
	LinkDup       FaultKind = "linkdup"
	LinkRate      FaultKind = "linkrate"
	Reset         FaultKind = "reset"
	WrongClock    FaultKind = "clock"
	PowerCut      FaultKind = "powercut"
)

// FaultInfo describes a kind of fault.
type FaultInfo struct {
	Kind   FaultKind
	Effect string
	// Once means that the fault happens once, unless Fault.Times is given; others last.
	Once bool
	// Delay is the usual Fault.Delay, 0 for kinds that do not delay.
	Delay time.Duration
}

// FaultInfos are all kinds of faults.
var FaultInfos = []FaultInfo{
	{Kind: Stall, Once: true, Effect: "a download of software stalls halfway, or where it is; with op=backupConfig, an upload"},
	{Kind: Corrupt, Once: true, Effect: "one bit of a download of software is flipped"},
	{Kind: Truncate, Once: true, Effect: "a download of software ends halfway, or where it is"},
	{Kind: Refuse, Once: true, Effect: "the file server refuses the connection"},
	{Kind: Silent, Effect: "SNMP requests are not answered"},
	{Kind: Slow, Delay: time.Second, Effect: "SNMP requests are answered late"},
	{Kind: Wrong, Effect: "SNMP answers have a wrong last byte"},
	{Kind: LostTraps, Effect: "no notification leaves the device"},
	{Kind: DoubleTraps, Effect: "each notification is sent twice"},
	{Kind: LateTraps, Delay: 5 * time.Second, Effect: "notifications are sent late"},
	{Kind: ReorderTraps, Delay: 2 * time.Second, Effect: "each second notification overtakes the one before it, or follows after the delay"},
	{Kind: SelfTest, Effect: "software fails its self-test"},
	{Kind: SelfTestHangs, Effect: "the self-test does not end"},
	{Kind: Convert, Effect: "the conversion of configuration data fails"},
	{Kind: ConvertHalf, Effect: "the conversion leaves out one of its files"},
	{Kind: DiskFull, Effect: "the disk is full"},
	{Kind: ReadOnly, Effect: "the disk is read-only"},
	{Kind: DiskSlow, Delay: 10 * time.Millisecond, Effect: "each write to the disk is delayed"},
	{Kind: LinkDelay, Delay: 50 * time.Millisecond, Effect: "what the device sends or receives arrives late, by the delay plus or minus jitter=TIME"},
	{Kind: LinkLoss, Effect: "percent=10 of the UDP datagrams are lost in each direction"},
	{Kind: LinkDup, Effect: "percent=10 of the UDP datagrams arrive twice"},
	{Kind: LinkRate, Effect: "the link carries rate=64000 bytes per second"},
	{Kind: Reset, Once: true, Effect: "the connection to an FTP server is reset when something is read from it"},
	{Kind: WrongClock, Effect: "from the next start on the clock begins in 1970, or is wrong by the time of by, such as by=-48h"},
	{Kind: PowerCut, Once: true, Delay: time.Second, Effect: "the power fails for a second, or as long as delay says: when a phase begins, at=PERCENT of its bytes, in the middle of write=N to the disk, or at once"},
}

// Info describes the kind; ok is false for an unknown one.
func (k FaultKind) Info() (info FaultInfo, ok bool) {
	i := slices.IndexFunc(FaultInfos, func(f FaultInfo) bool { return f.Kind == k })
	if i < 0 {
		return FaultInfo{}, false
	}
	return FaultInfos[i], true
}

// ParseFault reads KIND[@PHASE][,KEY=VALUE...], such as
// stall,op=downloadSoftware,nth=2 or powercut@transferring,at=50. The keys are op, nth,
// times, for, delay, jitter, at, write, unsynced, percent, rate and by.
func ParseFault(s string) (Fault, error) {
	head, rest, _ := strings.Cut(s, ",")
	kind, phase, at := strings.Cut(head, "@")
	f := Fault{Kind: FaultKind(kind)}
	info, known := f.Kind.Info()
	if !known {
		var names []string
		for _, i := range FaultInfos {
			names = append(names, string(i.Kind))
		}
		return f, fmt.Errorf("fault %q: unknown kind %q (want one of %s)", s, kind, strings.Join(names, ", "))
	}
	if at {
		var err error
		if f.Phase, err = ParsePhase(phase); err != nil {
			return f, fmt.Errorf("fault %q: %w", s, err)
		}
	}
	for _, item := range strings.Split(rest, ",") {
		if item == "" {
			continue
		}
		if err := f.set(item, info); err != nil {
			return f, fmt.Errorf("fault %q: %w", s, err)
		}
	}
	if f.At != 0 && f.Phase == 0 {
		return f, fmt.Errorf("fault %q: at=%d needs a phase, as in powercut@transferring,at=%d", s, f.At, f.At)
	}
	return f, nil
}

// set sets one KEY=VALUE.
func (f *Fault) set(item string, info FaultInfo) error {
	key, value, _ := strings.Cut(item, "=")
	number := func(to *int, least, most int) error {
		n, err := strconv.Atoi(value)
		if err != nil || n < least || n > most {
			return fmt.Errorf("%s=%s must be a number from %d to %d", key, value, least, most)
		}
		*to = n
		return nil
	}
	duration := func(to *time.Duration) error {
		d, err := time.ParseDuration(value)
		if err != nil || d <= 0 {
			return fmt.Errorf("%s=%s must be a duration such as 30s or 5m", key, value)
		}
		*to = d
		return nil
	}
	switch {
	case key == "op":
		var err error
		f.Operation, err = ParseOperation(value)
		return err
	case key == "nth":
		return number(&f.Nth, 1, 1<<30)
	case key == "times":
		return number(&f.Times, 1, 1<<30)
	case key == "for":
		return duration(&f.For)
	case key == "delay" && info.Delay != 0:
		return duration(&f.Delay)
	case key == "at" && f.Kind == PowerCut:
		return number(&f.At, 1, 99)
	case key == "write" && f.Kind == PowerCut:
		return number(&f.Write, 1, 1<<30)
	case key == "unsynced" && f.Kind == PowerCut:
		if value != UnsyncedKept && value != UnsyncedLost && value != UnsyncedMixed {
			return fmt.Errorf("unsynced=%s: want %s, %s or %s", value, UnsyncedKept, UnsyncedLost, UnsyncedMixed)
		}
		f.Unsynced = value
		return nil
	case key == "percent" && (f.Kind == LinkLoss || f.Kind == LinkDup):
		return number(&f.Percent, 1, 100)
	case key == "rate" && f.Kind == LinkRate:
		return number(&f.Rate, 100, 1<<30)
	case key == "jitter" && f.Kind == LinkDelay:
		return duration(&f.Jitter)
	case key == "by" && f.Kind == WrongClock:
		d, err := time.ParseDuration(value)
		if err != nil || d == 0 {
			return fmt.Errorf("by=%s must be a duration such as -48h or 90m", value)
		}
		f.By = d
		return nil
	}
	return fmt.Errorf("%s does not take %q", f.Kind, key)
}

// ParsePhase returns the phase of a name, such as transferring.
func ParsePhase(name string) (mib.OperationPhase, error) {
	for p := mib.OperationPhaseChecking; p <= mib.OperationPhaseCleaning; p++ {
		if p.String() == name {
			return p, nil
		}
	}
	return 0, fmt.Errorf("unknown phase %q (want transferring, verifying, switching, trying ...)", name)
}

// ParseOperation returns the operation of a name, such as downloadSoftware.
func ParseOperation(name string) (mib.OperationKind, error) {
	for k := mib.OperationKindBackupConfig; k <= mib.OperationKindConfirm; k++ {
		if k.String() == name {
			return k, nil
		}
	}
	return 0, fmt.Errorf("unknown operation %q (want backupConfig, downloadSoftware, activate, recoverConfig ...)", name)
}

// String is what ParseFault reads.
func (f Fault) String() string {
	var b strings.Builder
	b.WriteString(string(f.Kind))
	if f.Phase != 0 {
		b.WriteString("@" + f.Phase.String())
	}
	if f.Operation != 0 {
		b.WriteString(",op=" + f.Operation.String())
	}
	for _, n := range []struct {
		key   string
		value int
	}{{"nth", f.Nth}, {"times", f.Times}, {"at", f.At}, {"write", f.Write}, {"percent", f.Percent}, {"rate", f.Rate}} {
		if n.value != 0 {
			fmt.Fprintf(&b, ",%s=%d", n.key, n.value)
		}
	}
	if f.For != 0 {
		b.WriteString(",for=" + short(f.For))
	}
	if f.Delay != 0 {
		b.WriteString(",delay=" + short(f.Delay))
	}
	if f.Jitter != 0 {
		b.WriteString(",jitter=" + short(f.Jitter))
	}
	if f.Unsynced != "" {
		b.WriteString(",unsynced=" + f.Unsynced)
	}
	if f.By != 0 {
		b.WriteString(",by=" + short(f.By))
	}
	return b.String()
}

// short is a duration without zeros at its end.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-len("0s")]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-len("0m")]
	}
	return s
}

// delay is how long the fault delays.
func (f Fault) delay() time.Duration {
	if f.Delay != 0 {
		return f.Delay
	}
	info, _ := f.Kind.Info()
	return info.Delay
}

// percent is how many of a hundred datagrams the fault is about.
func (f Fault) percent() int {
	if f.Percent != 0 {
		return f.Percent
	}
	return 10
}

// rate is how many bytes the link carries in a second.
func (f Fault) rate() int {
	if f.Rate != 0 {
		return f.Rate
	}
	return 64_000
}

// times is how often the fault happens, 0 for always.
func (f Fault) times() int {
	if info, _ := f.Kind.Info(); info.Once {
		return max(1, f.Times)
	}
	return f.Times
}

// Share is a fault for some of many devices.
type Share struct {
	Fault
	Percent int // of the devices, 0 to 100
}

// ParseShare reads FAULT[:PERCENT], see ParseFault; the percentage is 100 if not given.
func ParseShare(s string) (Share, error) {
	text, percent, ok := strings.Cut(s, ":")
	share := Share{Percent: 100}
	if ok {
		n, err := strconv.Atoi(percent)
		if err != nil || n < 0 || n > 100 {
			return share, fmt.Errorf("fault %q: %q is not a percentage", s, percent)
		}
		share.Percent = n
	}
	var err error
	share.Fault, err = ParseFault(text)
	return share, err
}

// Draw decides which devices have which faults: of each fault exactly its share, rounded
// to whole devices. The same numbers give the same faults.
func Draw(shares []Share, seed uint64, devices int) (drawn [][]Fault) {
	drawn = make([][]Fault, devices)
	for k, s := range shares {
		r := rand.New(rand.NewPCG(seed, uint64(k)))
		for _, i := range r.Perm(devices)[:(devices*s.Percent+50)/100] {
			drawn[i] = append(drawn[i], s.Fault)
		}
	}
	return drawn
}
