package device

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/gosnmp/gosnmp"

	"example.com/iad/mib"
)

// engineState is what a Client knows about the engine that answers.
type engineState struct {
	device string // iadUpgDeviceId as it was read first
	engine string // SNMP engine ID of the last authentic answer; empty with SNMPv2c
	// left is the engine that answered before, until commands to the new one are
	// accepted.
	left   string
	warn   func(text string)
	accept func(ctx context.Context, question string) bool // nil: no
}

// AcceptEngine sets the function that decides whether commands may be sent to a device
// that has returned with another engine ID.
func (c *Client) AcceptEngine(f func(ctx context.Context, question string) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.accept = f
}

// usm returns the security parameters in use, nil with SNMPv2c.
func (c *Client) usm() *gosnmp.UsmSecurityParameters {
	params, _ := c.snmp.SecurityParameters.(*gosnmp.UsmSecurityParameters)
	return params
}

// noteEngine records which engine answered, and warns if it is another one than before.
func (c *Client) noteEngine() {
	params := c.usm()
	if params == nil || params.AuthoritativeEngineID == "" || params.AuthoritativeEngineID == c.engine {
		return
	}
	if c.engine != "" {
		if c.left == "" {
			c.left = c.engine
		}
		if c.warn != nil {
			c.warn(fmt.Sprintf("%s: the device has come back with another SNMP engine ID, %x (before: %x)", c.address, params.AuthoritativeEngineID, c.engine))
		}
	}
	c.engine = params.AuthoritativeEngineID
	if c.left == c.engine {
		c.left = "" // the one that was known is back
	}
}

// discover finds out whether another engine answers now, after a failure that can mean
// this. Anybody can forge the engine ID of a report, so only an authentic answer counts,
// made with keys for that engine.
func (c *Client) discover(failed error) bool {
	if c.engine == "" || !errors.Is(failed, gosnmp.ErrUnknownEngineID) && !strings.Contains(failed.Error(), "not authentic") {
		return false
	}
	before, context := c.snmp.SecurityParameters, c.snmp.ContextEngineID
	fresh := c.creds.User.USM()
	c.snmp.SecurityParameters, c.snmp.ContextEngineID = fresh, ""
	packet, err := c.snmp.Get([]string{c.module.OID(mib.DeviceId, scalar...).String()})
	if err != nil || packet.PDUType == gosnmp.Report || fresh.AuthoritativeEngineID == c.engine {
		c.snmp.SecurityParameters, c.snmp.ContextEngineID = before, context
		return false
	}
	c.noteEngine()
	return true
}

// sameEngine refuses commands to another engine than before, unless it was accepted.
func (c *Client) sameEngine(ctx context.Context, write bool) error {
	if !write || c.left == "" {
		return nil
	}
	err := fmt.Errorf("%s: %w: it has come back with the SNMP engine ID %x (before: %x); "+
		"use --other-device if this is the same unit", c.address, ErrIdentity, c.engine, c.left)
	if c.accept == nil || !c.accept(ctx, err.Error()) {
		return err
	}
	c.left = ""
	return nil
}

// sameDevice refuses an answer with another device ID than the first answer had.
func (c *Client) sameDevice(id string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.device == "" {
		c.device = id
	}
	if c.device != id {
		return fmt.Errorf("%s: %w: it has the device ID %q; before it was %q", c.address, ErrIdentity, id, c.device)
	}
	return nil
}
