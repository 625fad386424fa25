package procedure

import (
	"fmt"
	"strings"
)

// Kind is a kind of operation; the numbers are those of IadUpgOperationKind.
type Kind uint8

// Kinds of operation.
const (
	None Kind = 1 + iota
	BackupConfig
	DownloadSoftware
	Activate
	Reset
	RestoreOldSoftware
	RecoverConfig
	ConvertConfig
	Abort
	Confirm
)

var kindNames = []string{None: "none", BackupConfig: "backupConfig", DownloadSoftware: "downloadSoftware",
	Activate: "activate", Reset: "reset", RestoreOldSoftware: "restoreOldSoftware",
	RecoverConfig: "recoverConfig", ConvertConfig: "convertConfig", Abort: "abort", Confirm: "confirm"}

func (k Kind) String() string { return name(kindNames, int(k)) }

// State is the state of an operation; the numbers are those of
// IadUpgOperationState.
type State uint8

// States of an operation. Succeeded, Failed and Aborted are final.
const (
	Idle State = 1 + iota
	Waiting
	Running
	Restarting
	Aborting
	Succeeded
	Failed
	Aborted
)

var stateNames = []string{Idle: "idle", Waiting: "waiting", Running: "running", Restarting: "restarting",
	Aborting: "aborting", Succeeded: "succeeded", Failed: "failed", Aborted: "aborted"}

func (s State) String() string { return name(stateNames, int(s)) }

// Final reports whether no operation is going on in this state.
func (s State) Final() bool { return s == Idle || s >= Succeeded }

// Phase is what an operation is doing; the numbers are those of
// IadUpgOperationPhase.
type Phase uint8

// Phases of an operation.
const (
	PhaseNone Phase = 1 + iota
	Checking
	Collecting
	Connecting
	Transferring
	Verifying
	Erasing
	Writing
	Converting
	Applying
	Switching
	PhaseRestarting
	Trying
	Cleaning
)

var phaseNames = []string{PhaseNone: "none", Checking: "checking", Collecting: "collecting", Connecting: "connecting",
	Transferring: "transferring", Verifying: "verifying", Erasing: "erasing", Writing: "writing",
	Converting: "converting", Applying: "applying", Switching: "switching", PhaseRestarting: "restarting",
	Trying: "trying", Cleaning: "cleaning"}

func (p Phase) String() string { return name(phaseNames, int(p)) }

func name(names []string, n int) string {
	if n > 0 && n < len(names) && names[n] != "" {
		return names[n]
	}
	return fmt.Sprint(n)
}

// FileKind is a kind of file; the numbers are those of IadUpgFileType.
type FileKind uint8

// Kinds of file.
const (
	Software FileKind = 1 + iota
	UserData
	PortData
	ProtocolParams
	DefaultParams
	OtherData
)

// FileKinds is how many kinds of file there are.
const FileKinds = 6

var fileNames = []string{Software: "software", UserData: "userData", PortData: "portData",
	ProtocolParams: "protocolParams", DefaultParams: "defaultParams", OtherData: "otherData"}

func (k FileKind) String() string { return name(fileNames, int(k)) }

// FileSet is a set of kinds of files: 1<<n stands for bit n of IadUpgFileSet.
type FileSet uint8

// SetOf returns the set of the given kinds.
func SetOf(kinds ...FileKind) (s FileSet) {
	for _, k := range kinds {
		s |= 1 << (k - 1)
	}
	return s
}

// AllConfig is the set of all kinds of configuration data.
const AllConfig FileSet = 0b111110

// Has reports whether k is in the set.
func (s FileSet) Has(k FileKind) bool { return s&(1<<(k-1)) != 0 }

// Kinds lists the set in the order of the kinds.
func (s FileSet) Kinds() (kinds []FileKind) {
	for k := Software; k <= OtherData; k++ {
		if s.Has(k) {
			kinds = append(kinds, k)
		}
	}
	return kinds
}

// Options of a request: 1<<n stands for bit n of iadUpgReqOptions.
type Options uint8

// Options, see iadUpgReqOptions.
const (
	Force Options = 1 << iota
	AllowDowngrade
	ThenActivate
	ThenReset
	ConvertFirst
	CheckOnly
)

// Has reports whether all of p are set.
func (o Options) Has(p Options) bool { return o&p == p }

func (o Options) String() string {
	var names []string
	for i, n := range []string{"force", "allowDowngrade", "thenActivate", "thenReset", "convertFirst", "checkOnly"} {
		if o&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return strings.Join(names, " ")
}

// RestartReason tells why the device started; the numbers are those of
// iadUpgRestartReason.
type RestartReason uint8

// Reasons for a restart.
const (
	ReasonUnknown RestartReason = 1 + iota
	ReasonPowerOn
	ReasonCommanded
	ReasonActivation
	ReasonRollback
	ReasonWatchdog
	ReasonFault
	ReasonLocal
)

var reasonNames = []string{ReasonUnknown: "unknown", ReasonPowerOn: "powerOn", ReasonCommanded: "commanded",
	ReasonActivation: "activation", ReasonRollback: "rollback", ReasonWatchdog: "watchdog", ReasonFault: "fault",
	ReasonLocal: "local"}

func (r RestartReason) String() string { return name(reasonNames, int(r)) }

// EventType is the type of an event; the numbers are those of
// iadUpgEventType, the last number of the notification's object identifier.
type EventType uint8

// Types of events.
const (
	EventStarted      EventType = 1
	EventCompleted    EventType = 3
	EventFailed       EventType = 4
	EventBankSwitched EventType = 5
	EventRolledBack   EventType = 6
	EventRestarting   EventType = 7
	EventRestarted    EventType = 8
)

var eventNames = []string{EventStarted: "started", EventCompleted: "completed", EventFailed: "failed",
	EventBankSwitched: "bankSwitched", EventRolledBack: "rolledBack", EventRestarting: "restarting",
	EventRestarted: "restarted"}

func (t EventType) String() string { return name(eventNames, int(t)) }

// ConfirmMode tells who accepts software on trial; the numbers are those of
// iadUpgConfirmMode.
type ConfirmMode uint8

// Modes of confirmation.
const (
	ConfirmAutomatic ConfirmMode = 1
	ConfirmByManager ConfirmMode = 2
)

// BankState is the state of a bank; the numbers are those of iadUpgBankState.
type BankState uint8

// States of a bank.
const (
	BankEmpty BankState = 1 + iota
	BankWriting
	BankVerifying
	BankReady
	BankTrial
	BankGood
	BankFailed
	BankCorrupt
)

// PercentUnknown is the value of iadUpgOpPercent while progress is unknown.
const PercentUnknown = 255

// before returns the number before n.
func before(n uint32) uint32 {
	if n--; n == 0 {
		return 1<<32 - 1
	}
	return n
}

// next returns the number after n; the numbers of operations and events wrap
// to 1.
func next(n uint32) uint32 {
	if n++; n == 0 {
		return 1
	}
	return n
}
