package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Client sends requests to a Server.
type Client struct {
	address string
	token   string
	http    *http.Client
}

// NewClient returns a client of the server at an address: HOST:PORT, or the path of a Unix
// socket, which has a slash in it.
func NewClient(address, token string) *Client {
	c := &Client{address: address, token: token, http: http.DefaultClient}
	if IsSocket(address) {
		c.http = &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", address)
			},
		}}
	}
	return c
}

// IsSocket reports whether an address is the path of a Unix socket.
func IsSocket(address string) bool { return strings.Contains(address, "/") }

// do sends a request. body and answer may be nil.
func (c *Client) do(ctx context.Context, method, path string, body, answer any) error {
	r, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer r.Close()
	if answer == nil {
		return nil
	}
	return json.NewDecoder(r).Decode(answer)
}

func (c *Client) send(ctx context.Context, method, path string, body any) (io.ReadCloser, error) {
	host := c.address
	if IsSocket(host) {
		host = "iadsim"
	}
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(data)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://"+host+"/v1/"+path, content)
	if err != nil {
		return nil, err
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	answer, err := c.http.Do(r)
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) {
			err = failed.Err
		}
		return nil, fmt.Errorf("iadsim run at %s does not answer: %w; start it with --control %[1]s", c.address, err)
	}
	if answer.StatusCode == http.StatusOK {
		return answer.Body, nil
	}
	defer answer.Body.Close()
	var p Problem
	if json.NewDecoder(answer.Body).Decode(&p) != nil || p.Title == "" {
		p.Title = answer.Status
	}
	return nil, errors.New(p.Title)
}

func ofID(id, rest string) string { return "devices/" + url.PathEscape(id) + rest }

// Devices returns all devices.
func (c *Client) Devices(ctx context.Context) (list []Device, err error) {
	return list, c.do(ctx, http.MethodGet, "devices", nil, &list)
}

// Device returns one device.
func (c *Client) Device(ctx context.Context, id string) (d Device, err error) {
	return d, c.do(ctx, http.MethodGet, ofID(id, ""), nil, &d)
}

// Inject gives a device a fault, as sim.ParseFault reads it.
func (c *Client) Inject(ctx context.Context, id, fault string) (d Device, err error) {
	return d, c.do(ctx, http.MethodPost, ofID(id, "/faults"), map[string]string{"fault": fault}, &d)
}

// Clear removes the faults of a kind from a device, all of them if kind is empty.
func (c *Client) Clear(ctx context.Context, id, kind string) (n int, err error) {
	var cleared Cleared
	err = c.do(ctx, http.MethodDelete, ofID(id, "/faults?kind="+url.QueryEscape(kind)), nil, &cleared)
	return cleared.Cleared, err
}

// Power switches the power of a device off or on, or cuts it for a second.
func (c *Client) Power(ctx context.Context, id, power string) (d Device, err error) {
	return d, c.do(ctx, http.MethodPost, ofID(id, "/power"), Power{power}, &d)
}

// Restart switches a device off and on again.
func (c *Client) Restart(ctx context.Context, id string) (d Device, err error) {
	return d, c.do(ctx, http.MethodPost, ofID(id, "/restart"), nil, &d)
}

// Set changes settings of a device.
func (c *Client) Set(ctx context.Context, id string, s Settings) (d Device, err error) {
	return d, c.do(ctx, http.MethodPatch, ofID(id, ""), s, &d)
}

// Events calls f with each event after a number. With follow it waits for more, until ctx
// ends or the server does.
func (c *Client) Events(ctx context.Context, after uint64, follow bool, f func(Event) error) error {
	query := url.Values{"after": {strconv.FormatUint(after, 10)}, "follow": {strconv.FormatBool(follow)}}
	r, err := c.send(ctx, http.MethodGet, "events?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	defer r.Close()
	for d := json.NewDecoder(r); ; {
		var e Event
		err := d.Decode(&e)
		switch {
		case err == nil:
		case errors.Is(err, io.EOF) || ctx.Err() != nil:
			return nil
		default:
			return err
		}
		if err := f(e); err != nil {
			return err
		}
	}
}
