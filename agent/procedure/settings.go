package procedure

import "time"

// Protocol is a file transfer protocol; the numbers are those of
// IadUpgProtocol.
type Protocol uint8

// File transfer protocols.
const (
	TFTP Protocol = 1
	FTP  Protocol = 2
	FTPS Protocol = 3
)

var protocolNames = []string{TFTP: "tftp", FTP: "ftp", FTPS: "ftps"}

func (p Protocol) String() string { return name(protocolNames, int(p)) }

// Servers is the number of rows of iadUpgServerTable.
const Servers = 4

// Server is a row of iadUpgServerTable.
type Server struct {
	AddressType uint8    `json:"address_type"` // InetAddressType (RFC 4001)
	Address     []byte   `json:"address"`      // InetAddress
	Port        uint16   `json:"port"`         // 0: the usual one
	Protocol    Protocol `json:"protocol"`
	User        string   `json:"user"`
	Password    []byte   `json:"password"`
	Path        string   `json:"path"`
	Timeout     uint32   `json:"timeout"` // seconds without an octet
}

// InUse tells whether the row has an address.
func (s *Server) InUse() bool { return len(s.Address) > 0 }

// File is the writable part of a row of iadUpgFileTable.
type File struct {
	Name   string `json:"name"`
	Size   uint32 `json:"size"`   // expected, 0 for any
	Digest []byte `json:"digest"` // expected SHA-256, empty for any
}

// Params are the parameters of a request, the iadUpgReq objects.
type Params struct {
	ReqID     uint32  `json:"req_id"`
	Owner     string  `json:"owner"`
	Server    uint8   `json:"server"`
	Files     FileSet `json:"files"`
	Bank      uint8   `json:"bank"`
	Version   string  `json:"version"`
	Options   Options `json:"options"`
	TimeLimit uint32  `json:"time_limit"` // seconds, 0: the device chooses
	Retries   uint8   `json:"retries"`
	Delay     uint32  `json:"delay"`     // seconds
	TargetOp  uint32  `json:"target_op"` // for abort
}

// defaultParams are the DEFVALs of the iadUpgReq objects.
var defaultParams = Params{Server: 1, Retries: 2}

// Notify is iadUpgNotifyControl.
type Notify struct {
	Enable      uint8  `json:"enable"`       // 1<<n: bit n of iadUpgNotifyEnable
	Step        uint8  `json:"step"`         // percent
	MinInterval uint32 `json:"min_interval"` // seconds
	MaxInterval uint32 `json:"max_interval"` // seconds, 0: never
}

// Settings are all the writable objects of the module but the lock and the
// trigger. They are kept over a restart.
type Settings struct {
	Servers       [Servers]Server `json:"servers"`
	Files         [FileKinds]File `json:"files"` // index: FileKind-1
	Params        Params          `json:"params"`
	ConfirmMode   ConfirmMode     `json:"confirm_mode"`
	ConfirmWindow uint32          `json:"confirm_window"` // seconds
	Notify        Notify          `json:"notify"`
}

// DefaultSettings returns the DEFVALs of the module.
func DefaultSettings() Settings {
	s := Settings{
		Params:        defaultParams,
		ConfirmMode:   ConfirmAutomatic,
		ConfirmWindow: 600,
		Notify:        Notify{Enable: 0xff, Step: 10, MinInterval: 2, MaxInterval: 60},
	}
	for i := range s.Servers {
		s.Servers[i].Protocol, s.Servers[i].Timeout = TFTP, 30
	}
	return s
}

// chosenLimits are the time limits that the device chooses for
// iadUpgReqTimeLimit 0.
var chosenLimits = map[Kind]time.Duration{
	BackupConfig: 5 * time.Minute, DownloadSoftware: time.Hour, Activate: 15 * time.Minute, Reset: 10 * time.Minute,
	RestoreOldSoftware: 15 * time.Minute, RecoverConfig: 10 * time.Minute, ConvertConfig: 10 * time.Minute,
}
