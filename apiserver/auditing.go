package apiserver

import (
	"maps"
	"net"
	"slices"

	"github.com/google/uuid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/apiserver/audit"
)

// How many requests of strangers are recorded. They could otherwise rotate everything else out of the log.
const (
	strangersPerSecond = 10
	strangersAtOnce    = 100
)

// audit records a stage of a request, at the server that the client asked: what is passed on to the leader is in one log only. What
// servers ask each other on their own account is left out, and so is what asks whether a server lives.
func (s *Server) audit(req *request, stage string, code int) {
	if s.cfg.Audit == nil || req.user.forwarded || req.user.in(groupServers) || isProbe(req.URL.Path) {
		return
	}
	decision := s.auditDecision(req)
	if decision.Level == audit.LevelNone || slices.Contains(decision.OmitStages, stage) {
		return
	}
	if req.user.Name == "" && !s.strangers.Allow() {
		s.cfg.Audit.Drop()
		return
	}
	if req.auditID == "" {
		req.auditID = uuid.NewString()
	}
	e := &audit.Event{
		AuditID: req.auditID, Stage: stage, RequestURI: req.URL.RequestURI(), Verb: req.verb, UserAgent: req.UserAgent(),
		User: userInfo(&req.user.User), RequestReceived: metav1.NewMicroTime(req.began),
	}
	if req.actor != nil {
		as := e.User
		e.User, e.ImpersonatedUser = userInfo(req.actor), &as
	}
	if host, _, err := net.SplitHostPort(req.RemoteAddr); err == nil {
		e.SourceIPs = []string{host}
	}
	if req.isResource {
		e.ObjectRef = req.auditObject()
	}
	if code != 0 {
		e.ResponseStatus = &audit.Status{Code: code}
	}
	e.Annotations = map[string]string{}
	if req.user.Name != "" { // otherwise it never came to a decision
		e.Annotations["authorization.k8s.io/decision"] = "forbid"
		if req.allowed {
			e.Annotations["authorization.k8s.io/decision"] = "allow"
		}
		maps.Copy(e.Annotations, req.notes)
	}
	s.auditBodies(req, decision, e)
	s.cfg.Audit.Record(e)
}

func isProbe(path string) bool { return path == "/livez" || path == "/readyz" || path == "/healthz" }
