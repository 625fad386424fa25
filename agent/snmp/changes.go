package snmp

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"example.com/iad/internal/snmp"
)

// changes is what managers have changed, as it is stored: keys and targets that
// differ from those of the configuration.
type changes struct {
	// Engine is the engine's own ID. Under another one its keys are useless.
	Engine  []byte         `json:"engine,omitempty"`
	Keys    []keyChange    `json:"keys,omitempty"`
	Targets []targetChange `json:"targets,omitempty"`
}

// keyChange is a row of usmUserTable.
type keyChange struct {
	Engine []byte `json:"engine"` // that the keys are localized to
	User   string `json:"user"`
	// Settings is the digest of the keys that the configuration gave the user
	// when these were changed. If it gives others now, they count.
	Settings []byte `json:"settings"`
	Auth     []byte `json:"auth,omitempty"` // a key that was not changed is empty
	Priv     []byte `json:"priv,omitempty"`
	Public   []byte `json:"public,omitempty"`
}

// maxChanges is the most rows of each kind that are read: more than any device has.
const maxChanges = 1024

// CheckChanges returns an error for what Config.Changes cannot be.
func CheckChanges(data []byte) error {
	_, err := readChanges(data)
	return err
}

func readChanges(data []byte) (c changes, err error) {
	if len(data) == 0 {
		return c, nil
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return changes{}, fmt.Errorf("snmp: what managers have changed: %w", err)
	}
	if len(c.Keys) > maxChanges || len(c.Targets) > maxChanges {
		return changes{}, errors.New("snmp: what managers have changed: too many users or targets")
	}
	for _, k := range c.Keys {
		if k.User == "" || len(k.User) > snmp.MaxUserName || len(k.Engine) < snmp.MinEngineID || len(k.Engine) > snmp.MaxEngineID ||
			len(k.Settings) != sha256.Size || len(k.Public) > maxPublic {
			return changes{}, fmt.Errorf("snmp: what managers have changed: user %q is damaged", k.User)
		}
	}
	for _, t := range c.Targets {
		if _, err := t.endpoint(); err != nil || t.Settings == "" || len(t.Address) > maxTAddress {
			return changes{}, fmt.Errorf("snmp: what managers have changed: target %q is damaged", t.Settings)
		}
	}
	return c, nil
}

// changes collects what differs from the configuration after set, or now if that is nil.
func (e *Engine) changes(set *ownSet) changes {
	c := changes{Engine: e.cfg.EngineID}
	for _, a := range e.accounts() {
		k := a.changeTo(a.keys.Load(), a.public)
		if set != nil && set.accounts[a] != nil {
			k = a.changeTo(set.accounts[a].keys, set.accounts[a].public)
		}
		if k.Auth != nil || k.Priv != nil || len(k.Public) > 0 {
			c.Keys = append(c.Keys, k)
		}
	}
	for _, s := range e.sinks {
		at := *s.at.Load()
		if set != nil && set.targets[s] != nil {
			at = set.targets[s].endpoint(s)
		}
		if t, changed := s.changeTo(at); changed {
			c.Targets = append(c.Targets, t)
		}
	}
	return c
}

// ErrUncertain is in the error of Config.Store if a restart may find the changes although they were
// refused.
var ErrUncertain = errors.New("the changes may be in force after a restart")

// settleAgain is how long the engine waits after it failed to settle what is stored.
const settleAgain = time.Second

// settle stores what is in force if a restart might find something else: changes that were refused,
// because they could not be stored safely.
func (e *Engine) settle() {
	now := e.now()
	if !e.unsettled || now.Sub(e.settled) < settleAgain {
		return
	}
	e.settled = now
	if e.store(e.changes(nil)) == nil {
		e.log.Info("changes that were refused are no longer stored")
	}
}

// store makes changes last.
func (e *Engine) store(c changes) error {
	if e.cfg.Store == nil {
		return errors.New("this device stores no changes")
	}
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	err = e.cfg.Store(data)
	switch {
	case err == nil:
		e.unsettled = false
	case errors.Is(err, ErrUncertain):
		e.unsettled = true
	}
	return err
}

// applyChanges puts what managers have changed in force, but for what the configuration has
// changed since.
func (e *Engine) applyChanges() {
	c, err := readChanges(e.cfg.Changes)
	if err != nil {
		e.findings = append(e.findings, err.Error())
		return
	}
	outdated := false
	lost := len(c.Engine) > 0 && !bytes.Equal(c.Engine, e.cfg.EngineID)
	for _, k := range c.Keys {
		if lost && bytes.Equal(k.Engine, c.Engine) {
			if k.Auth != nil || k.Priv != nil {
				e.findings = append(e.findings, fmt.Sprintf("the SNMP engine has another engine ID: the keys of user %s are those of the settings, not those that a manager set", k.User))
			}
			continue
		}
		switch a := e.accountOf(k); {
		case a == nil && lost && (k.Auth != nil || k.Priv != nil):
			e.findings = append(e.findings, fmt.Sprintf("the keys of user %s at another engine are those of the settings, not those that a manager set", k.User))
		case a == nil:
			outdated = true
			e.log.Info("the settings have changed, and replace the keys that a manager set", "user", k.User)
		default:
			a.public = k.Public
		}
	}
	for _, t := range c.Targets {
		if !t.apply(e) {
			outdated = true
			e.log.Info("the settings have changed, and replace the address that a manager set", "target", t.Settings)
		} else if t.lost() {
			e.findings = append(e.findings, fmt.Sprintf("notifications for %s go through the interface %s, which does not exist", t.Settings, t.Zone))
		}
	}
	if outdated && !lost {
		// Or it would return with the old settings.
		if err := e.store(e.changes(nil)); err != nil {
			e.log.Warn("what the settings replace is still stored", "err", err)
		}
	}
}

// accountOf puts the keys of a change in force. It returns nil if the configuration has no such
// user any more, or gives it other keys than those that were changed.
func (e *Engine) accountOf(k keyChange) *account {
	u := e.users[k.User]
	if u == nil {
		return nil
	}
	a := u.own
	if !bytes.Equal(k.Engine, e.cfg.EngineID) {
		if !e.informs(u) {
			return nil
		}
		a = newAccount(u, k.Engine)
	}
	if !bytes.Equal(k.Settings, a.settingsDigest()) {
		return nil
	}
	keys, err := a.settings.WithKeys(k.Auth, k.Priv)
	if err != nil {
		return nil
	}
	a.keys.Store(keys)
	if a != u.own {
		return e.register(a)
	}
	return a
}

// Findings are sentences about what managers had changed and is lost.
func (e *Engine) Findings() []string { return e.findings }

// Changed is what managers have changed.
type Changed struct {
	// Users have other keys than the configuration gives them.
	Users []string
	// Targets of notifications have other addresses.
	Targets []MovedTarget
}

// Stored returns what Config.Changes change, whatever the configuration says.
func Stored(data []byte) (c Changed) {
	stored, err := readChanges(data)
	if err != nil {
		return c
	}
	for _, k := range stored.Keys {
		if (k.Auth != nil || k.Priv != nil) && !slices.Contains(c.Users, k.User) {
			c.Users = append(c.Users, k.User)
		}
	}
	slices.Sort(c.Users)
	for _, t := range stored.Targets {
		if at, err := t.endpoint(); err == nil {
			c.Targets = append(c.Targets, MovedTarget{t.Settings, at.address})
		}
	}
	return c
}

// Changed returns what managers have changed.
func (e *Engine) Changed() (c Changed) {
	seen := make(map[string]bool)
	for _, a := range e.accounts() {
		if k := a.changeTo(a.keys.Load(), nil); (k.Auth != nil || k.Priv != nil) && !seen[k.User] {
			seen[k.User] = true
			c.Users = append(c.Users, k.User)
		}
	}
	slices.Sort(c.Users)
	for _, s := range e.sinks {
		if t, moved := s.moved(); moved {
			c.Targets = append(c.Targets, t)
		}
	}
	return c
}
