package control

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"example.com/iad/sim"
)

// Server answers requests about devices.
type Server struct {
	// Device returns a device by its ID, nil for none.
	Device func(id string) *sim.Device
	// Devices returns all devices in their order.
	Devices func() []*sim.Device
	Log     *Log
	// Token is what requests must carry as a bearer token; empty for none.
	Token string
}

// route is one request of the interface.
type route struct {
	pattern string // as for http.ServeMux
	serve   func(s *Server, w http.ResponseWriter, r *http.Request) (answer any, err error)
}

// routes are all requests. An answer of nil has no content, or was written by serve.
var routes = []route{
	{"GET /v1/openapi.json", func(_ *Server, w http.ResponseWriter, _ *http.Request) (any, error) {
		return json.RawMessage(Description), nil
	}},
	{"GET /v1/devices", func(s *Server, w http.ResponseWriter, _ *http.Request) (any, error) {
		list := []Device{}
		for _, d := range s.Devices() {
			list = append(list, describe(d))
		}
		return list, nil
	}},
	{"GET /v1/devices/{id}", ofDevice(func(d *sim.Device, _ *http.Request) (any, error) { return describe(d), nil })},
	{"PATCH /v1/devices/{id}", ofDevice(func(d *sim.Device, r *http.Request) (any, error) {
		var set Settings
		if err := read(r, &set); err != nil {
			return nil, err
		}
		if set.Calls != nil {
			if *set.Calls < 0 {
				return nil, &problem{http.StatusBadRequest, fmt.Errorf("calls=%d is negative", *set.Calls)}
			}
			d.SetCalls(*set.Calls)
		}
		return describe(d), nil
	})},
	{"POST /v1/devices/{id}/faults", ofDevice(func(d *sim.Device, r *http.Request) (any, error) {
		var given Fault
		if err := read(r, &given); err != nil {
			return nil, err
		}
		f, err := sim.ParseFault(given.Fault)
		if err != nil {
			return nil, &problem{http.StatusBadRequest, err}
		}
		d.Inject(f)
		return describe(d), nil
	})},
	{"DELETE /v1/devices/{id}/faults", ofDevice(func(d *sim.Device, r *http.Request) (any, error) {
		kind := sim.FaultKind(r.URL.Query().Get("kind"))
		if _, known := kind.Info(); kind != "" && !known {
			return nil, &problem{http.StatusBadRequest, fmt.Errorf("unknown kind of fault %q", kind)}
		}
		return Cleared{d.ClearFaults(kind)}, nil
	})},
	{"POST /v1/devices/{id}/power", ofDevice(func(d *sim.Device, r *http.Request) (any, error) {
		var p Power
		if err := read(r, &p); err != nil {
			return nil, err
		}
		switch p.Power {
		case "off":
			d.CutPower()
		case "on":
			d.PowerOn()
		case "cut":
			d.Blink(0)
		default:
			return nil, &problem{http.StatusBadRequest, fmt.Errorf("unknown power %q (want off, on or cut)", p.Power)}
		}
		return describe(d), nil
	})},
	{"POST /v1/devices/{id}/restart", ofDevice(func(d *sim.Device, _ *http.Request) (any, error) {
		d.Restart()
		return describe(d), nil
	})},
	{"GET /v1/events", (*Server).events},
}

// problem is an error with the status of its answer.
type problem struct {
	status int
	error
}

// read decodes the body of a request.
func read(r *http.Request, v any) error {
	d := json.NewDecoder(io.LimitReader(r.Body, 64<<10))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return &problem{http.StatusBadRequest, fmt.Errorf("the body of the request: %w", err)}
	}
	return nil
}

// ofDevice serves a request about the device in its path.
func ofDevice(serve func(*sim.Device, *http.Request) (any, error)) func(*Server, http.ResponseWriter, *http.Request) (any, error) {
	return func(s *Server, _ http.ResponseWriter, r *http.Request) (any, error) {
		d := s.Device(r.PathValue("id"))
		if d == nil {
			return nil, &problem{http.StatusNotFound, fmt.Errorf("no device %q", r.PathValue("id"))}
		}
		return serve(d, r)
	}
}

func (s *Server) events(w http.ResponseWriter, r *http.Request) (any, error) {
	query := r.URL.Query()
	var after uint64
	if text := query.Get("after"); text != "" {
		var err error
		if after, err = strconv.ParseUint(text, 10, 64); err != nil {
			return nil, &problem{http.StatusBadRequest, fmt.Errorf("after=%s is not a number", text)}
		}
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := json.NewEncoder(w)
	if query.Get("follow") != "true" {
		for _, e := range s.Log.After(after) {
			if err := out.Encode(e); err != nil {
				return nil, nil // the client has gone
			}
		}
		return nil, nil
	}
	flush := http.NewResponseController(w)
	w.WriteHeader(http.StatusOK)
	_ = flush.Flush()
	_ = s.Log.Follow(r.Context(), after, func(e Event) error {
		if err := out.Encode(e); err != nil {
			return err
		}
		return flush.Flush()
	})
	return nil, nil
}

// Handler returns the handler of the interface.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, route := range routes {
		mux.HandleFunc(route.pattern, func(w http.ResponseWriter, r *http.Request) {
			answer, err := route.serve(s, w, r)
			if err != nil {
				status := http.StatusInternalServerError
				var p *problem
				if errors.As(err, &p) {
					status = p.status
				}
				writeJSON(w, status, "application/problem+json", Problem{err.Error(), status})
				return
			}
			if answer != nil {
				writeJSON(w, http.StatusOK, "application/json", answer)
			}
		})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		if s.Token != "" && subtle.ConstantTimeCompare([]byte(given), []byte(s.Token)) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			writeJSON(w, http.StatusUnauthorized, "application/problem+json", Problem{"the token is missing or wrong", http.StatusUnauthorized})
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func writeJSON(w http.ResponseWriter, status int, kind string, v any) {
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client may have gone
}

// Serve serves the interface until ctx ends, and closes the listener.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: s.Handler(), ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	err := server.Serve(l)
	if ctx.Err() != nil {
		return nil
	}
	return err
}
