package controllers

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

// Bounds of a Recorder: events that wait to be written, and events whose repeats are counted.
const (
	maxUnwritten  = 256
	maxRemembered = 512
)

// RecorderConfig configures a Recorder.
type RecorderConfig struct {
	Client    *store.Client
	Component string
	Now       func() time.Time
	Logger    *slog.Logger
}

// Recorder writes Events. A repeat of an event counts the first one up instead of making another. Recording never blocks:
// when too much waits to be written, events are dropped.
type Recorder struct {
	cfg        RecorderConfig
	queue      chan occurrence
	remembered map[occurrence]store.Key // by the occurrence without its time
	order      []occurrence             // of remembered, oldest first
}

// occurrence is something that happened to an object.
type occurrence struct {
	apiVersion, kind, namespace, name string
	uid                               types.UID
	eventType, reason, message        string
	at                                time.Time
}

// NewRecorder returns a recorder; it writes while Run runs.
func NewRecorder(cfg RecorderConfig) *Recorder {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Recorder{cfg: cfg, queue: make(chan occurrence, maxUnwritten), remembered: map[occurrence]store.Key{}}
}

// Event records what happened to an object. The type is corev1.EventTypeNormal or EventTypeWarning.
func (r *Recorder) Event(object api.Object, eventType, reason, message string) {
	kind := api.KindFor(object)
	if kind == nil {
		return
	}
	version, name := kind.GVK.ToAPIVersionAndKind()
	o := occurrence{
		apiVersion: version, kind: name, namespace: object.GetNamespace(), name: object.GetName(), uid: object.GetUID(),
		eventType: eventType, reason: reason, message: message, at: r.cfg.Now(),
	}
	select {
	case r.queue <- o:
	default:
	}
}

func (r *Recorder) eventf(object api.Object, eventType, reason, format string, args ...any) {
	r.Event(object, eventType, reason, fmt.Sprintf(format, args...))
}

// Run writes events until ctx ends.
func (r *Recorder) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case o := <-r.queue:
			if err := r.write(ctx, o); err != nil && ctx.Err() == nil {
				r.cfg.Logger.Debug("an event is lost", "reason", o.reason, "object", o.namespace+"/"+o.name, "error", err)
			}
		}
	}
}

func (r *Recorder) write(ctx context.Context, o occurrence) error {
	same := o
	same.at = time.Time{}
	if key, ok := r.remembered[same]; ok {
		_, err := r.cfg.Client.Modify(ctx, key, "", func(object api.Object) error {
			event := object.(*corev1.Event)
			event.Count++
			event.LastTimestamp = metav1.NewTime(o.at)
			return nil
		})
		if !apierrors.IsNotFound(err) {
			return err
		}
	}
	created, err := r.cfg.Client.Create(ctx, r.newEvent(o))
	if err != nil {
		return err
	}
	r.remember(same, key(events, created.GetNamespace(), created.GetName()))
	return nil
}

func (r *Recorder) newEvent(o occurrence) *corev1.Event {
	namespace := o.namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("%s.%x", o.name, o.at.UnixNano())},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: o.apiVersion, Kind: o.kind, Namespace: o.namespace, Name: o.name, UID: o.uid,
		},
		Type: o.eventType, Reason: o.reason, Message: o.message, Count: 1,
		FirstTimestamp: metav1.NewTime(o.at), LastTimestamp: metav1.NewTime(o.at),
		Source: corev1.EventSource{Component: r.cfg.Component}, ReportingController: r.cfg.Component,
	}
}

func (r *Recorder) remember(o occurrence, key store.Key) {
	if _, ok := r.remembered[o]; !ok {
		r.order = append(r.order, o)
	}
	r.remembered[o] = key
	if len(r.order) > maxRemembered {
		delete(r.remembered, r.order[0])
		r.order = r.order[1:]
	}
}
