package agent

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/afero"

	"example.com/iad/agent/snmp"
	"example.com/iad/internal/durable"
)

var managedMagic = [4]byte{'I', 'A', 'D', 'U'}

// managedRecord is what managers have changed of the SNMP engine: keys of users and targets of
// notifications.
const managedRecord = "managed"

// openManaged gives the engine what managers have changed and a way to store more of it.
// Keys must not return to older ones when a copy of the record is lost, so each change is written to
// both. findings name what was damaged.
func openManaged(state afero.Fs, c *snmp.Config) (findings []string) {
	rec, data, findings, err := durable.OpenRecord(state, managedRecord, managedMagic, stateVersion, snmp.CheckChanges)
	if err != nil {
		c.Store = func([]byte) error { return err }
		return append(findings, managedRecord+": "+err.Error())
	}
	if len(findings) > 0 && data == nil {
		findings = append(findings, "what managers had changed of users and targets may be lost: those of the settings count")
	}
	c.Changes = data
	c.Store = func(changes []byte) error {
		if err := rec.Write(changes); err != nil {
			// Or the next start might find what was refused.
			if again := rec.Write(data); again != nil {
				return fmt.Errorf("%w; %w: %w", err, snmp.ErrUncertain, again)
			}
			return err
		}
		data = changes
		if err := rec.Write(changes); err != nil && c.Log != nil {
			c.Log.Warn("a record has one good copy only", "record", managedRecord, "err", err)
		}
		return nil
	}
	// A power cut between the two writes leaves older keys in one of them.
	if data != nil && !rec.Agreed() {
		if err := rec.Write(data); err != nil {
			findings = append(findings, fmt.Sprintf("%s has one good copy only: %v", managedRecord, err))
		}
	}
	return findings
}

// peekManaged reads what managers have changed and is in force. It changes nothing.
func peekManaged(cfg Config) (snmp.Changed, []string) {
	if cfg.SNMP == nil {
		return snmp.Changed{}, nil
	}
	data, findings := durable.ReadRecord(cfg.State, managedRecord, managedMagic, stateVersion, snmp.CheckChanges)
	if data == nil {
		return snmp.Changed{}, findings
	}
	c := *cfg.SNMP
	c.Conn, c.Changes, c.Boots = nil, data, 1
	if id, _ := durable.ReadRecord(cfg.State, "identity", identityMagic, stateVersion, checkIdentity); len(c.EngineID) == 0 && id != nil {
		var known identity
		if json.Unmarshal(id, &known) == nil {
			c.EngineID = known.EngineID
		}
	}
	e, err := snmp.New(c, nil)
	if err != nil {
		return snmp.Changed{}, findings // the settings are at fault, which run reports
	}
	changed := e.Changed()
	// Those of the command line are in no settings, and a start removes those that do not count.
	changed.Targets = snmp.Stored(data).Targets
	return changed, append(findings, e.Findings()...)
}

// DiscardManaged returns a device that is not running to the settings: what managers have changed of
// users and targets no longer counts, whether or not it did with these settings. It returns what that was.
func DiscardManaged(cfg Config) (snmp.Changed, error) {
	rec, data, _, err := durable.OpenRecord(cfg.State, managedRecord, managedMagic, stateVersion, snmp.CheckChanges)
	if err != nil {
		return snmp.Changed{}, err
	}
	changed := snmp.Stored(data)
	for range 2 { // both copies: they have keys
		if err := rec.Write(nil); err != nil {
			return changed, err
		}
	}
	return changed, rec.RemoveQuarantined()
}
