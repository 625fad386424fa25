package procedure

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"example.com/iad/mib"
)

// Servers is the number of rows of iadUpgServerTable.
const Servers = 4

// Server is a row of iadUpgServerTable.
type Server struct {
	AddressType uint8        `json:"address_type"` // InetAddressType (RFC 4001)
	Address     []byte       `json:"address"`      // InetAddress
	Port        uint16       `json:"port"`         // 0: the usual one
	Protocol    mib.Protocol `json:"protocol"`
	User        string       `json:"user"`
	Password    []byte       `json:"password"`
	Path        string       `json:"path"`
	Timeout     uint32       `json:"timeout"` // seconds without a byte
	// Zone is the interface of a link-local address without a zone: the one by which
	// the request of the running operation came, "" if that is not known.
	Zone string `json:"-"`
}

func (s *Server) equal(o *Server) bool {
	return s.AddressType == o.AddressType && bytes.Equal(s.Address, o.Address) && s.Port == o.Port &&
		s.Protocol == o.Protocol && s.User == o.User && bytes.Equal(s.Password, o.Password) &&
		s.Path == o.Path && s.Timeout == o.Timeout
}

// InUse reports whether the row has an address.
func (s *Server) InUse() bool { return len(s.Address) > 0 }

// File is the writable part of a row of iadUpgFileTable.
type File struct {
	Name   string `json:"name"`
	Size   uint32 `json:"size"`   // expected, 0 for any
	Digest []byte `json:"digest"` // expected SHA-256, empty for any
}

func (f *File) equal(o *File) bool {
	return f.Name == o.Name && f.Size == o.Size && bytes.Equal(f.Digest, o.Digest)
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
	Servers       [Servers]Server     `json:"servers"`
	Files         [FileKinds]File     `json:"files"` // index: mib.FileType-1
	Params        Params              `json:"params"`
	ConfirmMode   mib.ConfirmModeEnum `json:"confirm_mode"`
	ConfirmWindow uint32              `json:"confirm_window"` // seconds
	Notify        Notify              `json:"notify"`
}

func (s *Settings) equal(o *Settings) bool {
	for i := range s.Servers {
		if !s.Servers[i].equal(&o.Servers[i]) {
			return false
		}
	}
	for i := range s.Files {
		if !s.Files[i].equal(&o.Files[i]) {
			return false
		}
	}
	return s.Params == o.Params && s.ConfirmMode == o.ConfirmMode && s.ConfirmWindow == o.ConfirmWindow && s.Notify == o.Notify
}

// DefaultSettings returns the DEFVALs of the module.
func DefaultSettings() Settings {
	s := Settings{
		Params:        defaultParams,
		ConfirmMode:   mib.ConfirmModeAutomatic,
		ConfirmWindow: 600,
		Notify:        Notify{Enable: 0xff, Step: 10, MinInterval: 2, MaxInterval: 60},
	}
	for i := range s.Servers {
		s.Servers[i].Protocol, s.Servers[i].Timeout = mib.ProtocolTftp, 30
	}
	return s
}

// chosenLimits are the time limits that the device chooses for
// iadUpgReqTimeLimit 0.
var chosenLimits = map[mib.OperationKind]time.Duration{
	mib.OperationKindBackupConfig: 5 * time.Minute, mib.OperationKindDownloadSoftware: time.Hour, mib.OperationKindActivate: 15 * time.Minute, mib.OperationKindReset: 10 * time.Minute,
	mib.OperationKindRestoreOldSoftware: 15 * time.Minute, mib.OperationKindRecoverConfig: 10 * time.Minute, mib.OperationKindConvertConfig: 10 * time.Minute,
}

// decodeSettings reads what persistSettings wrote; no data are the defaults.
func decodeSettings(data []byte) (Settings, error) {
	s := DefaultSettings()
	if len(data) == 0 {
		return s, nil
	}
	err := json.Unmarshal(data, &s)
	if err == nil {
		err = s.validate()
	}
	if err != nil {
		return DefaultSettings(), fmt.Errorf("settings: %w", err)
	}
	return s, nil
}

// CheckSettings reports whether an engine could use data as the contents of its
// record of settings.
func CheckSettings(data []byte) error {
	_, err := decodeSettings(data)
	return err
}

// validate refuses values that the module does not allow.
func (s *Settings) validate() error {
	for _, r := range s.Servers {
		if r.Protocol < mib.ProtocolTftp || r.Protocol > mib.ProtocolFtps || r.Timeout < 1 || r.Timeout > 600 || len(r.Address) > 255 {
			return errors.New("server parameters out of range")
		}
	}
	n := s.Notify
	switch {
	case !s.Params.valid():
		return errors.New("parameters out of range")
	case s.ConfirmMode != mib.ConfirmModeAutomatic && s.ConfirmMode != mib.ConfirmModeManager || s.ConfirmWindow < 30 || s.ConfirmWindow > 86400:
		return fmt.Errorf("confirm mode %d, window %d s", s.ConfirmMode, s.ConfirmWindow)
	case n.Step < 1 || n.Step > 100 || n.MinInterval > 3600 || n.MaxInterval > 3600 || n.MaxInterval > 0 && n.MaxInterval < 5:
		return fmt.Errorf("notification step %d, intervals %d s and %d s", n.Step, n.MinInterval, n.MaxInterval)
	}
	return nil
}

func (p *Params) valid() bool {
	return p.Server <= Servers && p.Files <= AllConfig|SetOf(mib.FileTypeSoftware) && p.Bank <= 2 && p.Options < CheckOnly<<1 &&
		p.TimeLimit <= 86400 && p.Retries <= 10 && p.Delay <= 86400
}
