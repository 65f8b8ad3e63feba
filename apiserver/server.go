// Package apiserver owns the HTTP face of the control plane: discovery, reading, writing, patching and watching the served
// kinds, their Table form, OpenAPI, health, and the streams to a pod's device. It decides who may come in and who may do
// what; the store decides what a write does.
//
// Any server answers. A follower reads from its own memory and passes on to the leader what only the leader can do.
package apiserver

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"

	"github.com/shoal-edge/shoal/apiserver/access"
	"github.com/shoal-edge/shoal/apiserver/audit"
	"github.com/shoal-edge/shoal/apiserver/fairness"
	"github.com/shoal-edge/shoal/apiserver/fieldmanager"
	"github.com/shoal-edge/shoal/apiserver/matching"
	"github.com/shoal-edge/shoal/apiserver/tokens"
	"github.com/shoal-edge/shoal/store"
)

//go:generate go run ./openapigen openapi

// Consensus is what the apiserver needs to know of the log.
type Consensus interface {
	IsLeader() bool
	// Leader is the leader's identity and the address of its API, host:port.
	Leader() (id, addr string, ok bool)
	// ReadIndex returns, on the leader, a revision that includes every write acknowledged before the call.
	ReadIndex(ctx context.Context) (uint64, error)
}

// Config configures a Server.
type Config struct {
	Client    *store.Client
	Durable   *store.Store
	Consensus Consensus
	// Authorizer decides what users may do. Client should ask its Guards before it writes. Nil: a new one of Durable.
	Authorizer *Authorizer
	// Tokens issues and checks the tokens of service accounts. Nil: there are none.
	Tokens *tokens.Authority
	// Forward reaches other servers over HTTP/1.1 with this server's certificate. Nil: there are none.
	Forward http.RoundTripper
	// ForwardSlow does the same without a limit for the answer. Nil: Forward.
	ForwardSlow http.RoundTripper
	// Snapshots saves and restores the durable state. Nil: not served.
	Snapshots Snapshots
	// SecretsKeys rotates the keys under which Secrets are stored. Nil: not served.
	SecretsKeys SecretsKeys
	// Members shows and changes the members of the control plane. Nil: not served.
	Members Members
	// Admit may refuse what the store never sees: a stream, a proxied request, an eviction, a token. Nil: all pass.
	Admit func(ctx context.Context, r *matching.Request) error
	// DialDevice opens a tunnel to a device's HTTP API. Nil: no streams.
	DialDevice func(ctx context.Context, node string) (net.Conn, error)
	// Audit records who asked what. Nil: nothing is recorded.
	Audit *audit.Log
	// AuditPolicy says how much is recorded. Nil: the metadata of every request.
	AuditPolicy *audit.Policy
	// Registry collects our metrics, and /metrics shows it. Nil: neither.
	Registry *prometheus.Registry
	// Ready adds checks to /readyz, by name.
	Ready map[string]func() error
	// Version is shoal's own version; clients see it behind the Kubernetes version that is served.
	Version string
	Now     func() time.Time
	Logger  *slog.Logger
	// MaxInFlight bounds the requests that are worked on at once, long-running ones aside. Devices and leases have room of their
	// own, a quarter of it. QueueWait is how long a request waits for room.
	MaxInFlight int
	QueueWait   time.Duration
	// LeaderWait is how long a request waits for a leader, so that clients ride over a fail-over.
	LeaderWait time.Duration
	// BookmarkEvery is after how much silence a watch that asked for bookmarks tells how far it is.
	BookmarkEvery time.Duration
}

// Limits of the HTTP listener.
const (
	defaultMaxInFlight = 200
	defaultQueueWait   = 5 * time.Second
	defaultLeaderWait  = 5 * time.Second
	defaultBookmark    = time.Minute
	maxHeaderBytes     = 64 << 10
	headerTimeout      = 10 * time.Second
	idleTimeout        = 2 * time.Minute
	requestTimeout     = 34 * time.Second
	bodyTimeout        = 30 * time.Second
	writeTimeout       = time.Minute
)

// Server answers API requests.
type Server struct {
	cfg            Config
	shared, system *fairness.Queue // of the requests that are worked on
	metrics        *metrics
	formats        *formats
	fields         *fieldmanager.Managers
	discovery      discovered
	bodies         *bodies
	paged          paged

	transfers sync.Mutex    // one snapshot at a time
	strangers *rate.Limiter // of those who are nobody, in the audit log
}

// limitCopies bounds what the copy operations of one JSON patch add up to: doubled often enough, they fill any memory. The
// library has no other way to be told.
var limitCopies = sync.OnceFunc(func() { jsonpatch.AccumulatedCopySizeLimit = maxBodyBytes })

// New returns a Server.
func New(cfg Config) *Server {
	limitCopies()
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Authorizer == nil {
		cfg.Authorizer = NewAuthorizer(cfg.Durable)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxInFlight <= 0 {
		cfg.MaxInFlight = defaultMaxInFlight
	}
	if cfg.QueueWait <= 0 {
		cfg.QueueWait = defaultQueueWait
	}
	if cfg.LeaderWait <= 0 {
		cfg.LeaderWait = defaultLeaderWait
	}
	if cfg.BookmarkEvery <= 0 {
		cfg.BookmarkEvery = defaultBookmark
	}
	if cfg.ForwardSlow == nil {
		cfg.ForwardSlow = cfg.Forward
	}
	return &Server{
		cfg:       cfg,
		shared:    newQueue(cfg, cfg.MaxInFlight),
		system:    newQueue(cfg, cfg.MaxInFlight/4+1),
		metrics:   newMetrics(cfg.Registry),
		formats:   newFormats(),
		strangers: rate.NewLimiter(strangersPerSecond, strangersAtOnce),
		fields:    fieldmanager.New(),
		bodies:    &bodies{by: map[string]int64{}},
	}
}

// HTTP returns an http.Server with the limits that a listener of the API needs. Its caller serves and closes it.
func (s *Server) HTTP() *http.Server {
	return &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ConnState:         newIdlers().changed,
		ErrorLog:          slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
	}
}

// Handler answers every request: who is it, may he, and then the answer.
func (s *Server) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &recorder{ResponseWriter: w}
		req := parse(r)
		defer s.finish(rec, req, time.Now())
		defer req.done()
		if err := s.serve(rec, req); err != nil {
			s.writeError(rec, req, err)
		}
	})
}

func (s *Server) serve(w *recorder, req *request) error {
	var err error
	if req.user, err = s.authenticate(req.Request); err != nil {
		return err
	}
	if !req.user.forwarded {
		if err := s.impersonate(req); err != nil {
			return err
		}
	}
	req.Request = req.WithContext(access.WithUser(req.Context(), &req.user.User))
	if queue := s.queueOf(req); queue != nil {
		release, ok := queue.Enter(req.Context(), req.user.Name)
		if !ok {
			return errTooBusy()
		}
		defer release()
	}
	if err := s.authorize(req); err != nil {
		return err
	}
	req.allowed = true
	if req.longRunning() {
		s.audit(req, audit.StageStarted, 0)
	}
	if req.URL.Path == SnapshotPath {
		return s.serveSnapshot(w, req)
	}
	if !req.longRunning() {
		ctx, cancel := context.WithTimeout(req.Context(), requestTimeout)
		defer cancel()
		req.Request = req.WithContext(ctx)
		w.limit(time.Now().Add(writeTimeout)) // a deadline is about real time, whatever clock objects see
	}
	if req.isResource {
		return s.serveResource(w, req)
	}
	if req.URL.Path == SecretsPath {
		return s.serveSecrets(w, req)
	}
	if isMembers(req.URL.Path) {
		return s.serveMembers(w, req)
	}
	return s.serveOther(w, req)
}

// serveOther answers everything that is no resource: discovery, health, metrics, OpenAPI, and what servers ask each other.
func (s *Server) serveOther(w http.ResponseWriter, req *request) error {
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		return errNotFound()
	}
	switch path := req.URL.Path; path {
	case "/version", "/version/":
		return s.serveVersion(w, req)
	case "/livez", "/healthz", "/readyz":
		return s.serveHealth(w, req)
	case "/metrics":
		return s.serveMetrics(w, req)
	case "/openapi/v3":
		return s.serveOpenAPIIndex(w, req)
	case "/openapi/v2":
		return s.serveOpenAPIv2(w, req)
	case discoveryPath, discoveryPath + "/":
		return s.serveOIDC(w, req)
	case keysPath, keysPath + "/":
		return s.serveKeys(w, req)
	case readIndexPath:
		return s.serveReadIndex(w, req)
	case statePath:
		return s.serveState(w, req)
	default:
		if name, ok := openAPIDocument(path); ok {
			return s.serveOpenAPI(w, req, name)
		}
		if name, ok := strings.CutPrefix(path, "/openapi/v3/"); ok {
			if versions := s.customDocuments()[name]; versions != nil {
				return s.serveCustomOpenAPI(w, req, name, versions)
			}
		}
		return s.serveDiscovery(w, req)
	}
}

// finish turns a panic into an answer, counts the request and lifts its write deadline from the connection.
func (s *Server) finish(w *recorder, req *request, began time.Time) {
	defer func() { s.audit(req, audit.StageComplete, w.code) }()
	if p := recover(); p != nil {
		if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(p)
		}
		s.cfg.Logger.Error("a request panicked", "path", req.URL.Path, "panic", p)
		if w.code != 0 {
			panic(http.ErrAbortHandler) // the answer has begun: cutting it off is all that is left to tell
		}
		s.writeError(w, req, errInternal("the request panicked"))
	}
	w.limit(time.Time{})
	s.metrics.count(req, w.code, time.Since(began))
	s.cfg.Logger.Debug("request", "method", req.Method, "path", req.URL.Path, "user", req.user.Name, "code", w.code)
}
