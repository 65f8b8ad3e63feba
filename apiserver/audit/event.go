// Package audit owns the record of who asked what of the API: events in the form of audit.k8s.io/v1, one JSON object a line, each
// with the hash of the line before it, so that a line that is changed, taken out or put in shows.
package audit

import (
	"encoding/json"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Stages of a request.
const (
	StageStarted  = "ResponseStarted" // of a watch or a stream, which may last
	StageComplete = "ResponseComplete"
	StagePanic    = "Panic"
)

// Annotations that shoal adds.
const (
	annotationPrevious = "audit.shoal.dev/previous-sha256"
	annotationDropped  = "audit.shoal.dev/dropped"
	annotationTorn     = "audit.shoal.dev/torn-bytes"
)

// Event is one event: who, when, what and how it ended, and, at the levels that say so, the bodies.
type Event struct {
	Kind       string `json:"kind"`
	APIVersion string `json:"apiVersion"`
	Level      string `json:"level"`
	AuditID    string `json:"auditID"`
	Stage      string `json:"stage"`

	RequestURI       string                     `json:"requestURI"`
	Verb             string                     `json:"verb"`
	User             authenticationv1.UserInfo  `json:"user"`
	ImpersonatedUser *authenticationv1.UserInfo `json:"impersonatedUser,omitempty"`
	SourceIPs        []string                   `json:"sourceIPs,omitempty"`
	UserAgent        string                     `json:"userAgent,omitempty"`
	ObjectRef        *Object                    `json:"objectRef,omitempty"`
	ResponseStatus   *Status                    `json:"responseStatus,omitempty"`
	RequestObject    json.RawMessage            `json:"requestObject,omitempty"`
	ResponseObject   json.RawMessage            `json:"responseObject,omitempty"`

	RequestReceived metav1.MicroTime  `json:"requestReceivedTimestamp"`
	StageTime       metav1.MicroTime  `json:"stageTimestamp"`
	Annotations     map[string]string `json:"annotations,omitempty"`
}

// Object is what a request is about.
type Object struct {
	Resource    string `json:"resource,omitempty"`
	Namespace   string `json:"namespace,omitempty"`
	Name        string `json:"name,omitempty"`
	APIGroup    string `json:"apiGroup,omitempty"`
	APIVersion  string `json:"apiVersion,omitempty"`
	Subresource string `json:"subresource,omitempty"`
}

// Status is how a request ended.
type Status struct {
	Metadata struct{} `json:"metadata"`
	Code     int      `json:"code"`
}

// Limits of what a client can put into an event.
const maxText = 2 << 10

// complete fills in what every event has, and cuts off what is too long.
func (e *Event) complete(now time.Time) {
	e.Kind, e.APIVersion = "Event", "audit.k8s.io/v1"
	if e.Level == "" {
		e.Level = string(LevelMetadata)
	}
	e.StageTime = metav1.NewMicroTime(now)
	e.RequestURI, e.UserAgent = cut(e.RequestURI), cut(e.UserAgent)
	if e.Annotations == nil {
		e.Annotations = map[string]string{}
	}
}

func cut(s string) string {
	if len(s) > maxText {
		return s[:maxText]
	}
	return s
}
