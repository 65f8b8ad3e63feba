package apiserver

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func errNotFound() error {
	return apierrors.NewGenericServerResponse(http.StatusNotFound, "", schema.GroupResource{}, "", "", 0, true)
}

func errInternal(text string) error { return apierrors.NewInternalError(errors.New(text)) }

func errTooBusy() error {
	return apierrors.NewTooManyRequests("Too many requests, please try again later.", 1)
}

func errNoLeader() *apierrors.StatusError {
	err := apierrors.NewServiceUnavailable("the control plane has no leader now, try again")
	err.ErrStatus.Details = &metav1.StatusDetails{RetryAfterSeconds: 1}
	return err
}

func errBadRequest(format string, args ...any) error {
	return apierrors.NewBadRequest(fmt.Sprintf(format, args...))
}

func errMethod(req *request) error {
	return apierrors.NewGenericServerResponse(http.StatusMethodNotAllowed, req.verb, req.groupResource(), req.name, "", 0, true)
}

// errExpired tells that a revision is no longer in the history.
func errExpired(revision, oldest uint64) *apierrors.StatusError {
	return apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d (%d)", revision, oldest))
}

// mediaError says which media types there are; upstream has the same two.
func mediaError[T ~string](code int, reason metav1.StatusReason, format string, accepted ...T) error {
	names := make([]string, len(accepted))
	for i, a := range accepted {
		names[i] = string(a)
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: int32(code), Reason: reason,
		Message: fmt.Sprintf(format, strings.Join(names, ", ")),
	}}
}

func errNotAcceptable() error {
	return mediaError(http.StatusNotAcceptable, metav1.StatusReasonNotAcceptable, "only the following media types are accepted: %v",
		mediaJSON, mediaYAML, mediaProtobuf)
}

func errUnsupported[T ~string](accepted ...T) error {
	return mediaError(http.StatusUnsupportedMediaType, metav1.StatusReasonUnsupportedMediaType,
		"the body of the request was in an unknown format - accepted media types include: %v", accepted...)
}

// writeError answers with the Status of an error. An error that is none is ours, and its text stays in the log.
func (s *Server) writeError(w http.ResponseWriter, req *request, err error) {
	var withStatus apierrors.APIStatus
	if !errors.As(err, &withStatus) {
		s.cfg.Logger.Error("a request failed", "method", req.Method, "path", req.URL.Path, "error", err)
		withStatus = apierrors.NewInternalError(err)
	}
	status := withStatus.Status()
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	if d := status.Details; d != nil && d.RetryAfterSeconds > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(d.RetryAfterSeconds)))
	}
	if req.user.forwarded && isUnavailable(err) {
		w.Header().Set(notLeaderHeader, "1")
	}
	out, err := negotiate(req.Request)
	if err != nil || out.as != "" {
		out = output{media: mediaJSON}
	}
	if err := s.writeObject(w, req, int(status.Code), out, &status); err != nil {
		s.cfg.Logger.Debug("an error could not be told", "path", req.URL.Path, "error", err)
	}
}

// settledError says that something is unavailable that another leader would not have either.
type settledError struct{ *apierrors.StatusError }

// isUnavailable reports whether a request failed for want of a leader, before anything was done.
func isUnavailable(err error) bool {
	if settled := new(settledError); errors.As(err, &settled) {
		return false
	}
	return apierrors.ReasonForError(err) == metav1.StatusReasonServiceUnavailable
}
