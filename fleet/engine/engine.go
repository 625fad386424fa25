package engine

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Config describes a node: a process that stores.
type Config struct {
	// Name identifies the node among the others; empty: "iadmsd", for the only node.
	Name string
	// Data is the directory for what the node stores. Required.
	Data string
	// Listen is the HOST:PORT for workers and other programs outside this process; empty:
	// there are none.
	Listen string
	// Cluster is the HOST:PORT for the other nodes, and Join the Cluster addresses of all
	// three nodes, the own one included. Both empty: the only node.
	Cluster string
	Join    []string
	// Secret is shared by all nodes and workers, at least 16 bytes. Required with Listen or
	// Cluster.
	Secret string
	// TLS encrypts connections at Listen and Cluster, where both sides present certificates;
	// nil: they are not encrypted.
	TLS *tls.Config
	// Log gets what the server reports; nil: nothing is logged.
	Log *slog.Logger
}

// Remote describes a connection to nodes in other processes.
type Remote struct {
	// URLs of the nodes, such as nats://192.0.2.1:4222. Required.
	URLs []string
	// Name identifies this process in the nodes' logs.
	Name string
	// Secret is Config.Secret of the nodes, or empty if the URLs or an external cluster need
	// none.
	Secret string
	// TLS is for connections; nil: they are not encrypted unless the nodes require it.
	TLS *tls.Config
	// Provision creates the streams, with so many replicas: on a cluster that is not our
	// own. 0: the nodes have created them.
	Provision int
	// Log gets connections lost and made again; nil: nothing is logged.
	Log *slog.Logger
}

// Engine is access to what the nodes store. It is safe for concurrent use.
type Engine struct {
	node *node // nil: the nodes are other processes
	conn *nats.Conn
	// system connects to the account that administers the nodes.
	system func() (*nats.Conn, error)
	js     jetstream.JetStream
	log    *slog.Logger
	// watching is the watch of node, which stopWatch ends.
	watching  sync.WaitGroup
	stopWatch context.CancelFunc
	// damages is what could not be decoded.
	damages damages
}

const (
	user       = "iadms"
	systemUser = "iadms-system"
	// systemName is the name of the account; the server stores what its nodes agree on below it.
	systemName  = server.DEFAULT_SYSTEM_ACCOUNT
	clusterName = "iadms"
	// minSecret is the minimum length of a secret in bytes.
	minSecret = 16
)

// ErrTwoNodes says that a cluster of two nodes was asked for: it would stop when either of
// them stops.
var ErrTwoNodes = errors.New("a cluster has 3 nodes: two would be less available than one")

// Check returns an error for a configuration that cannot work.
func (c *Config) Check() error {
	switch {
	case c.Data == "":
		return errors.New("engine: Data is required")
	case c.Cluster == "" && len(c.Join) > 0:
		return errors.New("engine: --join needs --cluster, this node's own address for the other nodes")
	case c.Cluster != "" && len(c.Join) == 2:
		return ErrTwoNodes
	case c.Cluster != "" && len(c.Join) != 3:
		return fmt.Errorf("engine: name the addresses of all 3 nodes, not %d", len(c.Join))
	case c.Cluster != "" && c.Name == "":
		return errors.New("engine: a node of a cluster needs a name")
	case (c.Listen != "" || c.Cluster != "") && len(c.Secret) < minSecret:
		return fmt.Errorf("engine: the secret must have at least %d bytes, because nodes and workers use it to recognize each other", minSecret)
	}
	return nil
}

// Start runs a node and returns access to it. In a cluster it waits until a majority of the
// nodes run.
func Start(ctx context.Context, c Config) (*Engine, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	if c.Name == "" {
		c.Name = "iadmsd"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	n := &node{config: c}
	if err := n.start(); err != nil {
		return nil, err
	}
	e := &Engine{node: n, log: c.Log, damages: damages{log: c.Log}}
	if err := e.startAccess(ctx, c); err != nil {
		e.Close()
		return nil, err
	}
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	e.stopWatch = stop
	e.watching.Go(func() { n.watch(watching) })
	return e, nil
}

// startAccess connects to the server in this process.
func (e *Engine) startAccess(ctx context.Context, c Config) error {
	s := e.node.server()
	for !s.ReadyForConnections(100 * time.Millisecond) {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("engine: the server in %s does not start: %w", c.Data, err)
		}
		if !s.Running() {
			return fmt.Errorf("engine: the server in %s has stopped; the log says why", c.Data)
		}
	}
	if !s.JetStreamEnabled() {
		return fmt.Errorf("engine: the store in %s cannot be used; the log says why", c.Data)
	}
	replicas := 1
	if c.Cluster != "" {
		replicas = 3
	}
	e.system = func() (*nats.Conn, error) {
		return nats.Connect(nats.DefaultURL, nats.Name(c.Name), nats.InProcessServer(e.node), nats.UserInfo(systemUser, c.Secret))
	}
	return e.connect(ctx, nats.DefaultURL, replicas, connectOptions(c.Name, c.Secret, c.Log, nats.InProcessServer(e.node))...)
}

// Connect returns access to nodes in other processes. It waits until one of them answers.
func Connect(ctx context.Context, r Remote) (*Engine, error) {
	if len(r.URLs) == 0 {
		return nil, errors.New("engine: name the URL of a node, such as nats://192.0.2.1:4222")
	}
	if r.Log == nil {
		r.Log = slog.New(slog.DiscardHandler)
	}
	var more []nats.Option
	if r.TLS != nil {
		more = append(more, nats.Secure(r.TLS))
	}
	e := &Engine{log: r.Log, damages: damages{log: r.Log}}
	e.system = func() (*nats.Conn, error) {
		return nats.Connect(strings.Join(r.URLs, ","), append(more, nats.Name(r.Name), nats.UserInfo(systemUser, r.Secret))...)
	}
	if err := e.connect(ctx, strings.Join(r.URLs, ","), r.Provision, connectOptions(r.Name, r.Secret, r.Log, more...)...); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// connectOptions are those of every connection: it is made again whenever it is lost, for
// ever.
func connectOptions(name, secret string, log *slog.Logger, more ...nats.Option) []nats.Option {
	options := []nats.Option{
		nats.Name(name), nats.MaxReconnects(-1), nats.ReconnectWait(250 * time.Millisecond), nats.RetryOnFailedConnect(true),
		nats.PingInterval(5 * time.Second), nats.MaxPingsOutstanding(2),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn("connection to the engine lost", "err", err)
			}
		}),
		nats.ReconnectHandler(func(c *nats.Conn) { log.Info("connected to the engine again", "node", c.ConnectedServerName()) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { log.Debug("engine", "err", err) }),
	}
	if secret != "" {
		options = append(options, nats.UserInfo(user, secret))
	}
	return append(options, more...)
}

func (e *Engine) connect(ctx context.Context, url string, replicas int, options ...nats.Option) (err error) {
	if e.conn, err = nats.Connect(url, options...); err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	if e.js, err = jetstream.New(e.conn, jetstream.WithDefaultTimeout(requestTime)); err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	if err := e.connected(ctx); err != nil {
		return err
	}
	if replicas > 0 {
		return e.provision(ctx, replicas)
	}
	return e.persist(ctx, func(ctx context.Context) error { // the nodes provision
		_, err := e.js.Stream(ctx, bucketStream(Leases))
		return err
	})
}

// connected waits for the first connection.
func (e *Engine) connected(ctx context.Context) error {
	for !e.conn.IsConnected() {
		if err := refusal(e.conn.LastError()); err != nil {
			return err
		}
		if pause(ctx) != nil {
			if err := e.conn.LastError(); err != nil {
				return fmt.Errorf("engine: no connection: %w", err)
			}
			return fmt.Errorf("engine: no connection: %w", ctx.Err())
		}
	}
	return nil
}

// refusal returns an error if there will be no connection however often it is tried.
func refusal(err error) error {
	var certificate *tls.CertificateVerificationError
	var alert tls.AlertError
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.As(err, &certificate), errors.As(err, &alert):
		return fmt.Errorf("engine: the nodes have another secret; every node and worker needs the same one: %w", err)
	case errors.Is(err, nats.ErrSecureConnRequired):
		return fmt.Errorf("engine: the nodes encrypt with their secret; every node and worker needs it: %w", err)
	case errors.Is(err, nats.ErrSecureConnWanted):
		return fmt.Errorf("engine: what answers does not encrypt with the secret as our nodes do: %w", err)
	}
	return nil
}

// Close ends the connection and, if this process is a node, stops it.
func (e *Engine) Close() {
	if e.conn != nil {
		e.conn.Close()
	}
	if e.node != nil {
		if e.stopWatch != nil {
			e.stopWatch()
		}
		e.watching.Wait()
		e.node.stop()
	}
}

// Ready returns an error unless the engine can store now. It wraps ErrNotStoring if the node in
// this process does not: the other nodes may still.
func (e *Engine) Ready(ctx context.Context) error {
	if e.node != nil {
		if err := e.node.stores(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	s, err := e.js.Stream(ctx, bucketStream(Leases))
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	if c := s.CachedInfo().Cluster; c != nil && c.Leader == "" {
		return errors.New("engine: a majority of the nodes does not answer")
	}
	return nil
}

// Address returns the address at which workers connect, "" if there is none.
func (e *Engine) Address() string {
	if e.node == nil || e.node.server().Addr() == nil {
		return ""
	}
	return e.node.server().Addr().String()
}

// Node is the state of a node.
type Node struct {
	Name    string `json:"name"`
	Leader  bool   `json:"leader,omitempty"` // of the stream of leases
	Current bool   `json:"current"`          // it has everything that is stored
	Offline bool   `json:"offline,omitempty"`
}

// Nodes returns the nodes that store, as the leaders of the streams see them: the
// leader of the leases first, then the others by name.
func (e *Engine) Nodes(ctx context.Context) ([]Node, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	byName := make(map[string]*Node)
	streams := make(map[string]int) // that a node has
	node := func(name string) *Node {
		if byName[name] == nil {
			byName[name] = &Node{Name: name, Current: true}
		}
		streams[name]++
		return byName[name]
	}
	all := streamNames()
	for _, name := range all {
		s, err := e.js.Stream(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("engine: %w", err)
		}
		c := s.CachedInfo().Cluster
		if c == nil || len(c.Replicas) == 0 {
			return []Node{{Name: e.conn.ConnectedServerName(), Leader: true, Current: true}}, nil
		}
		if c.Leader == "" {
			return nil, fmt.Errorf("engine: a majority of the nodes does not answer for %s", name)
		}
		if leader := node(c.Leader); name == bucketStream(Leases) {
			leader.Leader = true
		}
		for _, r := range c.Replicas {
			n := node(r.Name)
			n.Current, n.Offline = n.Current && r.Current, n.Offline || r.Offline
		}
	}
	list := make([]Node, 0, len(byName))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		n := *byName[name]
		n.Current = n.Current && streams[name] == len(all)
		list = append(list, n)
	}
	slices.SortStableFunc(list, func(a, b Node) int {
		switch {
		case a.Leader == b.Leader:
			return 0
		case a.Leader:
			return -1
		}
		return 1
	})
	return list, nil
}

// RemoveNode removes a node for good that does not run and will not again under its name, so that
// a node of another name can take its place. The error wraps ErrNotFound if there is no such
// node, and ErrConflict if it runs.
func (e *Engine) RemoveNode(ctx context.Context, name string) error {
	nodes, err := e.Nodes(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(nodes, func(n Node) bool { return n.Name == name })
	switch {
	case i < 0:
		return fmt.Errorf("engine: node %s: %w", name, ErrNotFound)
	case !nodes[i].Offline:
		return fmt.Errorf("engine: node %s runs; stop it first: %w", name, ErrConflict)
	}
	conn, err := e.system()
	if err != nil {
		return fmt.Errorf("engine: node %s is not removed: %w", name, err)
	}
	defer conn.Close()
	request, err := json.Marshal(server.JSApiMetaServerRemoveRequest{Server: name})
	if err != nil {
		return err
	}
	repeated := false
	return e.persist(ctx, func(ctx context.Context) error {
		again := repeated
		repeated = true
		reply, err := conn.RequestWithContext(ctx, server.JSApiRemoveServer, request)
		if err != nil {
			return err
		}
		var answer server.JSApiMetaServerRemoveResponse
		if err := json.Unmarshal(reply.Data, &answer); err != nil {
			return fmt.Errorf("engine: node %s is not removed: %w", name, err)
		}
		switch a := answer.Error; {
		case a == nil, again && a.ErrCode == uint16(server.JSClusterServerNotMemberErr): // removed by the request before
			return nil
		default:
			return fmt.Errorf("engine: node %s is not removed: %w", name, &jetstream.APIError{Code: a.Code, ErrorCode: jetstream.ErrorCode(a.ErrCode), Description: a.Description})
		}
	})
}

// maxStore is larger than any disk. Otherwise the server derives a limit from the room that
// there is when it starts, and keeps it when there is more.
const maxStore = 1 << 60

func (c *Config) options() (*server.Options, error) {
	o := &server.Options{
		ServerName: c.Name, DontListen: c.Listen == "", NoSigs: true, JetStream: true, StoreDir: c.Data, SyncAlways: true,
		JetStreamMaxMemory: 64 << 20, JetStreamMaxStore: maxStore, MaxPayload: 2 * maxValue, MaxPending: 256 << 20, Username: user, Password: c.Secret,
		TLSConfig: c.TLS, TLSVerify: c.TLS != nil,
	}
	if c.Secret == "" {
		o.Username = ""
	} else { // the nodes are administered from an account of their own
		o.Accounts, o.SystemAccount = []*server.Account{server.NewAccount(systemName)}, systemName
	}
	var err error
	if c.Listen != "" {
		if o.Host, o.Port, err = splitAddress(c.Listen); err != nil {
			return nil, err
		}
	}
	if c.Cluster == "" {
		return o, nil
	}
	o.Cluster = server.ClusterOpts{
		Name: clusterName, Username: user, Password: c.Secret, TLSConfig: c.TLS, PoolSize: 1, ConnectBackoff: true,
	}
	if o.Cluster.Host, o.Cluster.Port, err = splitAddress(c.Cluster); err != nil {
		return nil, err
	}
	for _, address := range c.Join {
		if _, _, err := splitAddress(address); err != nil {
			return nil, err
		}
		o.Routes = append(o.Routes, &url.URL{Scheme: "nats-route", Host: address, User: url.UserPassword(user, c.Secret)})
	}
	return o, nil
}

func splitAddress(text string) (host string, port int, err error) {
	host, portText, err := net.SplitHostPort(text)
	if err == nil {
		port, err = strconv.Atoi(portText)
	}
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("engine: %q is not HOST:PORT", text)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return host, port, nil
}

// serverLog passes what the server logs on. Its notices are details.
type serverLog struct{ log *slog.Logger }

func (l *serverLog) Noticef(format string, v ...any) {
	l.log.Debug("engine: " + fmt.Sprintf(format, v...))
}
func (l *serverLog) Warnf(format string, v ...any) {
	l.log.Warn("engine: " + fmt.Sprintf(format, v...))
}
func (l *serverLog) Fatalf(format string, v ...any) {
	l.log.Error("engine: " + fmt.Sprintf(format, v...))
}
func (l *serverLog) Errorf(format string, v ...any) {
	l.log.Error("engine: " + fmt.Sprintf(format, v...))
}
func (l *serverLog) Debugf(string, ...any) {}
func (l *serverLog) Tracef(string, ...any) {}
