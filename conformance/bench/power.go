// Package bench has drivers for what stands around a device in a laboratory: switches of
// its power supply, its serial console, and the packets on its network.
package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/gosnmp/gosnmp"
)

// Power switches the supply of a device.
type Power interface {
	On(ctx context.Context) error
	Off(ctx context.Context) error
}

// patience is how long a switch may take.
const patience = 30 * time.Second

// PowerForms describes what OpenPower reads, a line each.
const PowerForms = `exec:COMMAND            run COMMAND on, COMMAND off
pdudaemon:HOST/ALIAS    pdudaemon's HTTP interface; also HOST/PDU/PORT
snmp:HOST/OID           switched PDU: 1 is on, 2 is off; append =ON,OFF for
                        others; community in IADLAB_PDU_COMMUNITY
qmp:SOCKET              QEMU: stopped, and reset when power returns
iadsim:CONTROL/ID       device ID of iadsim run --control CONTROL, which is
                        HOST:PORT or the path of a socket; token for HOST:PORT
                        in IADLAB_IADSIM_TOKEN`

// Secrets are what power switches ask for.
type Secrets struct {
	// Community is for SNMP; empty: private.
	Community string
	// Token is for the control interface of iadsim over TCP.
	Token string
}

// OpenPower returns the driver for a specification as in PowerForms.
func OpenPower(spec string, secrets Secrets) (Power, error) {
	kind, rest, found := strings.Cut(spec, ":")
	if !found || rest == "" {
		return nil, fmt.Errorf("power %q: want one of\n%s", spec, PowerForms)
	}
	switch kind {
	case "exec":
		return execPower(rest), nil
	case "pdudaemon":
		return openPDUDaemon(rest)
	case "snmp":
		return openPDU(rest, secrets.Community)
	case "qmp":
		return qmpPower(rest), nil
	case "iadsim":
		return openIadsim(rest, secrets.Token)
	}
	return nil, fmt.Errorf("power %q: unknown driver %q; want one of\n%s", spec, kind, PowerForms)
}

// execPower is a command for a shell.
type execPower string

func (e execPower) On(ctx context.Context) error  { return e.run(ctx, "on") }
func (e execPower) Off(ctx context.Context) error { return e.run(ctx, "off") }

func (e execPower) run(ctx context.Context, action string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", string(e)+" "+action)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", string(e), action, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// pduDaemon is the HTTP interface of pdudaemon.
type pduDaemon struct {
	host  string
	query url.Values
}

func openPDUDaemon(rest string) (Power, error) {
	parts := strings.Split(rest, "/")
	host := parts[0]
	if _, _, err := net.SplitHostPort(host); err != nil {
		host = net.JoinHostPort(host, "16421") // its usual port
	}
	switch {
	case len(parts) == 2 && parts[1] != "":
		return &pduDaemon{host, url.Values{"alias": {parts[1]}}}, nil
	case len(parts) == 3 && parts[1] != "" && parts[2] != "":
		return &pduDaemon{host, url.Values{"hostname": {parts[1]}, "port": {parts[2]}}}, nil
	}
	return nil, fmt.Errorf("power pdudaemon:%s: want pdudaemon:HOST/ALIAS or pdudaemon:HOST/PDU/PORT", rest)
}

func (p *pduDaemon) On(ctx context.Context) error  { return p.control(ctx, "on") }
func (p *pduDaemon) Off(ctx context.Context) error { return p.control(ctx, "off") }

func (p *pduDaemon) control(ctx context.Context, action string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	address := url.URL{Scheme: "http", Host: p.host, Path: "/power/control/" + action, RawQuery: p.query.Encode()}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(response.Body, 1000))
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %s: %s", address.String(), response.Status, strings.TrimSpace(string(body)))
	}
	return nil
}

// iadsim is a virtual device.
type iadsim struct {
	client         *http.Client
	address, token string
	url            string
}

func openIadsim(rest, token string) (Power, error) {
	i := strings.LastIndex(rest, "/")
	if i < 1 || i == len(rest)-1 || !strings.ContainsAny(rest[:i], "/:") {
		return nil, fmt.Errorf("power iadsim:%s: want iadsim:HOST:PORT/ID, or iadsim:./SOCKET/ID for a socket in this directory", rest)
	}
	p := &iadsim{client: http.DefaultClient, address: rest[:i], token: token}
	host := p.address
	if strings.Contains(host, "/") {
		p.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", p.address)
		}}}
		host = "iadsim" // anything
	}
	address := url.URL{Scheme: "http", Host: host}
	p.url = address.JoinPath("v1", "devices", url.PathEscape(rest[i+1:]), "power").String()
	return p, nil
}

func (p *iadsim) On(ctx context.Context) error  { return p.set(ctx, "on") }
func (p *iadsim) Off(ctx context.Context) error { return p.set(ctx, "off") }

func (p *iadsim) set(ctx context.Context, state string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, strings.NewReader(`{"power":"`+state+`"}`))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	if p.token != "" {
		request.Header.Set("Authorization", "Bearer "+p.token)
	}
	response, err := p.client.Do(request)
	if err != nil {
		return fmt.Errorf("iadsim: %w; start it with iadsim run --control %s", err, p.address)
	}
	defer response.Body.Close()
	if response.StatusCode/100 == 2 {
		return nil
	}
	var problem struct {
		Title string `json:"title"`
	}
	if json.NewDecoder(io.LimitReader(response.Body, 1000)).Decode(&problem) != nil || problem.Title == "" {
		problem.Title = response.Status
	}
	if response.StatusCode == http.StatusUnauthorized {
		problem.Title += "; set IADLAB_IADSIM_TOKEN to what iadsim run has written into the file of --token-file"
	}
	return fmt.Errorf("iadsim at %s: %s", p.address, problem.Title)
}

// pdu is an outlet of a switched PDU, an INTEGER to be written.
type pdu struct {
	host, oid, community string
	on, off              int
}

func openPDU(rest, community string) (Power, error) {
	host, oid, found := strings.Cut(rest, "/")
	p := &pdu{host: host, oid: oid, community: community, on: 1, off: 2}
	if p.community == "" {
		p.community = "private"
	}
	if name, values, given := strings.Cut(oid, "="); given {
		p.oid = name
		if _, err := fmt.Sscanf(values, "%d,%d", &p.on, &p.off); err != nil {
			return nil, fmt.Errorf("power snmp:%s: want snmp:HOST/OID=ON,OFF with two numbers", rest)
		}
	}
	if !found || host == "" || strings.Trim(p.oid, ".0123456789") != "" || p.oid == "" {
		return nil, fmt.Errorf("power snmp:%s: want snmp:HOST/OID with an OID such as 1.3.6.1.4.1.318.1.1.4.4.2.1.3.1", rest)
	}
	return p, nil
}

func (p *pdu) On(ctx context.Context) error  { return p.set(ctx, p.on) }
func (p *pdu) Off(ctx context.Context) error { return p.set(ctx, p.off) }

func (p *pdu) set(ctx context.Context, value int) error {
	host, portText, err := net.SplitHostPort(p.host)
	if err != nil {
		host, portText = p.host, "161"
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return fmt.Errorf("power switch %s: %w", p.host, err)
	}
	client := &gosnmp.GoSNMP{
		Context: ctx, Target: host, Port: uint16(port), Transport: "udp", Community: p.community, Version: gosnmp.Version2c,
		Timeout: 2 * time.Second, Retries: 3,
	}
	if err := client.Connect(); err != nil {
		return fmt.Errorf("power switch %s: %w", p.host, err)
	}
	defer client.Close()
	answer, err := client.Set([]gosnmp.SnmpPDU{{Name: p.oid, Type: gosnmp.Integer, Value: value}})
	if err != nil {
		return fmt.Errorf("power switch %s: %w", p.host, err)
	}
	if answer.Error != gosnmp.NoError {
		return fmt.Errorf("power switch %s: it refuses to write %d to %s: %s", p.host, value, p.oid, answer.Error)
	}
	return nil
}

// qmpPower is the socket of QEMU's machine protocol. A machine without power is stopped,
// and reset before it continues: what is in its memory is lost, what it has written is not.
type qmpPower string

func (q qmpPower) Off(ctx context.Context) error { return q.execute(ctx, "stop") }
func (q qmpPower) On(ctx context.Context) error  { return q.execute(ctx, "system_reset", "cont") }

func (q qmpPower) execute(ctx context.Context, commands ...string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", string(q))
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	answers := json.NewDecoder(bufio.NewReader(conn))
	var greeting struct {
		QMP json.RawMessage `json:"QMP"`
	}
	if err := answers.Decode(&greeting); err != nil || greeting.QMP == nil {
		return fmt.Errorf("%s: this is not a socket of QMP: %w", string(q), errors.Join(err, errNoGreeting))
	}
	for _, command := range append([]string{"qmp_capabilities"}, commands...) {
		if err := json.NewEncoder(conn).Encode(map[string]string{"execute": command}); err != nil {
			return err
		}
		for {
			var answer struct {
				Event  string          `json:"event"`
				Return json.RawMessage `json:"return"`
				Error  *struct {
					Desc string `json:"desc"`
				} `json:"error"`
			}
			if err := answers.Decode(&answer); err != nil {
				return fmt.Errorf("%s: %s: %w", string(q), command, err)
			}
			if answer.Error != nil {
				return fmt.Errorf("%s: %s: %s", string(q), command, answer.Error.Desc)
			}
			if answer.Return != nil {
				break // other messages are events
			}
		}
	}
	return nil
}

var errNoGreeting = errors.New("no greeting")
