package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/afero"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"example.com/iad/bank/image"
	"example.com/iad/fleet/api"
	"example.com/iad/fleet/audit"
	"example.com/iad/fleet/auth"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/metrics"
	"example.com/iad/fleet/operations"
	"example.com/iad/fleet/service"
	"example.com/iad/fleet/store"
	"example.com/iad/fleet/ui"
	"example.com/iad/fleet/view"
	"example.com/iad/internal/cli"
	"example.com/iad/internal/durable"
	"example.com/iad/internal/textfile"
)

// webOptions are the flags of the role api.
type webOptions struct {
	listen          string
	cert, key       string
	plain           bool
	trust           []string
	requireApproval bool
	discover        []string
	networks        []netip.Prefix // of --discover
	openIDOptions
}

func (o *webOptions) register(f *pflag.FlagSet) {
	f.StringVar(&o.listen, "web", ":8443", "serve web pages and API on `HOST:PORT`")
	f.StringVar(&o.cert, "tls-cert", "", "PEM `file` with the certificate for --web (default: one is generated)")
	f.StringVar(&o.key, "tls-key", "", "PEM `file` with the key of --tls-cert")
	f.BoolVar(&o.plain, "no-tls", false, "serve HTTP without TLS, on a loopback address or behind a proxy")
	f.StringSliceVar(&o.trust, "trust", nil, "`file` with a public key that images may be signed with, or trust chain; may be given several times")
	f.StringSliceVar(&o.discover, "discover", nil, "let operators look for devices in `network`, such as 192.0.2.0/24; may be given several times")
	f.BoolVar(&o.requireApproval, "require-approval", false, "every campaign needs the approval of another person; schedules can only back up and check")
	cli.Group(f, "Web pages and API", "web", "tls-cert", "tls-key", "no-tls", "trust", "require-approval", "discover")
	o.openIDOptions.register(f)
}

// check reads what flags consist of.
func (o *webOptions) check() error {
	for _, text := range o.discover {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			return fmt.Errorf("--discover %s: use a network such as 192.0.2.0/24", text)
		}
		o.networks = append(o.networks, network.Masked())
	}
	return o.openIDOptions.check()
}

// Limits of connections.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 64 << 10
	// closeTimeout is how long requests may take that are in progress when the process ends.
	closeTimeout = 5 * time.Second
)

// web serves web pages, API and metrics until ctx ends.
func (o *options) web(ctx context.Context, s *store.Store, probes *probes, log *slog.Logger) error {
	listener, err := net.Listen("tcp", o.webOptions.listen)
	if err != nil {
		return fmt.Errorf("%w; name another address with --web", err)
	}
	defer listener.Close()
	if !o.plain {
		certificate, err := o.certificate(log)
		if err != nil {
			return err
		}
		listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS12})
	}
	temporary := filepath.Join(o.data, "tmp")
	if err := os.MkdirAll(temporary, 0o700); err != nil {
		return err
	}
	v, err := view.Open(filepath.Join(o.data, "view.sqlite"))
	if err != nil {
		return err
	}
	defer v.Close()
	svc := service.New(service.Config{
		Store: s, View: v, Audit: audit.New(s.Engine.Log(engine.Audit)), Trust: o.trusted, RequireApproval: o.requireApproval, Networks: o.networks, Dir: temporary, Log: log,
	})
	bucket, err := s.Engine.Bucket(ctx, engine.Access)
	if err != nil {
		return err
	}
	access := auth.New(bucket, svc.Record, time.Now)
	if err := o.bootstrap(ctx, access, log); err != nil {
		return err
	}
	measured := metrics.New(metrics.Config{Store: s, View: v, Version: version, Log: log})
	mux := http.NewServeMux()
	mux.Handle(api.Prefix+"/", api.New(api.Config{Service: svc, Access: access, Version: version, Log: log}))
	mux.Handle("/", ui.New(ui.Config{Service: svc, Access: access, Version: version, Secure: !o.plain, OpenID: o.openID, Log: log}))
	mux.Handle("GET /metrics", withToken(access, measured.Handler()))
	probes.register(mux)
	group, ctx := errgroup.WithContext(ctx)
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx }, // streams of events end with ctx
	}
	group.Go(func() error { return svc.Run(ctx) })
	group.Go(func() error { return measured.Run(ctx) })
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		closing, stop := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer stop()
		if err := server.Shutdown(closing); err != nil {
			return server.Close()
		}
		return nil
	})
	scheme := map[bool]string{true: "http", false: "https"}[o.plain]
	log.Info("web pages and API are ready", "url", scheme+"://"+listener.Addr().String()+"/")
	return group.Wait()
}

// withToken lets only those pass who have a token, as Prometheus can send one.
func withToken(access *auth.Access, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if ok { // a request without a token guesses nothing
			by, err := access.Token(r.Context(), token, auth.Host(r.RemoteAddr))
			ok = err == nil && by.Role.May(operations.Read)
		}
		if !ok {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "send a token of a viewer: Authorization: Bearer TOKEN", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// bootstrap makes the first user. The password is in a file before the user exists, so
// that it is known wherever this stops; a file that an earlier start left is used again.
func (o *options) bootstrap(ctx context.Context, access *auth.Access, log *slog.Logger) error {
	name, asked := filepath.Join(o.data, "initial-password"), false
	created, err := access.Bootstrap(ctx, func() (string, error) {
		asked = true
		text, err := os.ReadFile(name)
		if password := strings.TrimSpace(string(text)); err == nil && password != "" {
			return password, nil
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		password := auth.RandomPassword()
		return password, durable.ReplaceFile(afero.NewOsFs(), name, []byte(password+"\n"), 0o600)
	})
	switch {
	case created:
		log.Warn("created the user admin; change the password on the page Access, then delete the file", "password_file", name)
	case asked && err == nil: // another node made the user, with another password
		return os.Remove(name)
	}
	return err
}

// readTrust reads who may sign images, nil without files.
func readTrust(names []string) (*image.Trust, error) {
	if len(names) == 0 {
		return nil, nil
	}
	trust := image.TrustKeys()
	for _, name := range names {
		text, err := textfile.Read(name)
		if err == nil {
			trust, err = trust.With(text)
		}
		if err != nil {
			return nil, cli.Usage(fmt.Errorf("--trust %s: %w", name, err))
		}
	}
	return trust, nil
}

// certificateLife is how long a generated certificate is valid.
const certificateLife = 10 * 365 * 24 * time.Hour

// certificate reads the certificate for --web, or generates one at the first start.
func (o *options) certificate(log *slog.Logger) (tls.Certificate, error) {
	if o.cert != "" || o.webOptions.key != "" {
		c, err := tls.LoadX509KeyPair(o.cert, o.webOptions.key)
		if err != nil {
			return c, cli.Usage(fmt.Errorf("--tls-cert and --tls-key: %w", err))
		}
		return c, nil
	}
	certFile, keyFile := filepath.Join(o.data, "tls", "cert.pem"), filepath.Join(o.data, "tls", "key.pem")
	c, err := tls.LoadX509KeyPair(certFile, keyFile)
	if !errors.Is(err, fs.ErrNotExist) {
		return c, err
	}
	certPEM, keyPEM, err := generate(o.name, time.Now())
	if err != nil {
		return c, err
	}
	if err := os.MkdirAll(filepath.Dir(certFile), 0o700); err != nil {
		return c, err
	}
	if err := durable.ReplaceFile(afero.NewOsFs(), keyFile, keyPEM, 0o600); err != nil {
		return c, err
	}
	if err := durable.ReplaceFile(afero.NewOsFs(), certFile, certPEM, 0o644); err != nil {
		return c, err
	}
	if c, err = tls.X509KeyPair(certPEM, keyPEM); err != nil {
		return c, err
	}
	sum := sha256.Sum256(c.Certificate[0])
	log.Warn("generated a certificate for the web pages; browsers ask whether to trust it", "file", certFile, "sha256", hex.EncodeToString(sum[:]))
	return c, nil
}

// generate makes a certificate that signs itself, for this machine's names and addresses.
func generate(name string, now time.Time) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "iadmsd " + name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(certificateLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
		DNSNames: []string{"localhost", name},
	}
	if host, err := os.Hostname(); err == nil && host != name {
		template.DNSNames = append(template.DNSNames, host)
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil, nil, err
	}
	for _, a := range addresses {
		if network, ok := a.(*net.IPNet); ok {
			template.IPAddresses = append(template.IPAddresses, network.IP)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), nil
}
