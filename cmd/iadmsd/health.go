package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"example.com/iad/fleet/engine"
	"example.com/iad/internal/cli"
)

// probes answers /healthz, whether the process runs, and /readyz, whether it can store.
type probes struct {
	// engine is nil until the process is ready: a node waits for a majority of the nodes.
	engine atomic.Pointer[engine.Engine]
}

func (p *probes) register(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		err := errors.New("waiting for the nodes that store")
		if e := p.engine.Load(); e != nil {
			err = e.Ready(r.Context())
		}
		if err != nil {
			http.Error(w, "not ready: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
}

// serve answers probes on an address of their own until stop is called.
func (p *probes) serve(address string, log *slog.Logger) (stop func(), err error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%w; name another address with --health", err)
	}
	mux := http.NewServeMux()
	p.register(mux)
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("probes are not answered any more", "err", err)
		}
	}()
	log.Info("probes are answered", "url", "http://"+listener.Addr().String()+"/readyz")
	return func() { _ = server.Close() }, nil
}

// maxAnswer bounds what healthcheck reads of an answer, in bytes.
const maxAnswer = 1 << 10

func healthcheckCommand() *cobra.Command {
	var health, web string
	var plain bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Check that the service is ready",
		Long: `healthcheck asks the process on this machine whether it can store: at --health if
that is given, and else at --web. The exit status is 0 if it can and 1 if not.
Container engines use it. It sends no secret, and accepts any certificate.`,
		Example: `  iadmsd healthcheck --web :8443`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			target := url.URL{Scheme: "https", Host: web, Path: "/readyz"}
			if plain || health != "" {
				target.Scheme, target.Host = "http", cmp.Or(health, web)
			}
			host, port, err := net.SplitHostPort(target.Host)
			if err != nil {
				return cli.Usage(fmt.Errorf("--web and --health: use HOST:PORT: %w", err))
			}
			if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
				target.Host = net.JoinHostPort("localhost", port)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			text, err := readiness(ctx, target.String())
			if err != nil {
				return fmt.Errorf("iadmsd is not ready: %w", err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", target.String(), text)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&health, "health", "", "`HOST:PORT` of iadmsd run --health")
	f.StringVar(&web, "web", ":8443", "`HOST:PORT` of iadmsd run --web")
	f.BoolVar(&plain, "no-tls", false, "iadmsd run has --no-tls")
	f.DurationVar(&timeout, "timeout", 4*time.Second, "maximum wait for the answer")
	return cmd
}

// readiness returns the answer of /readyz.
func readiness(ctx context.Context, target string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return "", err
	}
	// The certificate may be for any name of this machine. Whoever listens here answers the question.
	c := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	answer, err := c.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return "", err
	}
	short := strings.TrimSpace(string(text))
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", answer.Status, short)
	}
	return short, nil
}
