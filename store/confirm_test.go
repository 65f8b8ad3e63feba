package store

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
)

// TestOldStateRefusesNothing lets clients decide on a server that lacks what happened lately elsewhere.
func TestOldStateRefusesNothing(t *testing.T) {
	key := Key{Resource: "configmaps", Namespace: "default", Name: "a"}
	withData := func(value, revision string) *corev1.ConfigMap {
		m := configMap("a")
		m.Data["k"], m.ResourceVersion = value, revision
		return m
	}
	tests := []struct {
		name   string
		before bool // the server knows of the object
		lately func(f *fixture) error
		write  func(f *fixture) error
	}{
		{
			"create what is gone", true,
			func(f *fixture) error { _, err := f.client.Delete(f.Context(), key, nil); return err },
			func(f *fixture) error { _, err := f.client.Create(f.Context(), configMap("a")); return err },
		},
		{
			"update what is new", false,
			func(f *fixture) error { _, err := f.client.Create(f.Context(), configMap("a")); return err },
			func(f *fixture) error { _, err := f.client.Update(f.Context(), withData("new", "")); return err },
		},
		{
			"update a newer revision", true,
			func(f *fixture) error { _, err := f.client.Update(f.Context(), withData("newer", "")); return err },
			func(f *fixture) error { _, err := f.client.Update(f.Context(), withData("newest", "2")); return err },
		},
		{
			"update to what it was", true,
			func(f *fixture) error { _, err := f.client.Update(f.Context(), withData("newer", "")); return err },
			func(f *fixture) error {
				obj, err := f.client.Update(f.Context(), withData("v", ""))
				if err == nil && obj.GetResourceVersion() != "3" {
					f.Errorf("nothing was written: %v", obj)
				}
				return err
			},
		},
		{
			"patch what is new", false,
			func(f *fixture) error { _, err := f.client.Create(f.Context(), configMap("a")); return err },
			func(f *fixture) error {
				_, err := f.client.Modify(f.Context(), key, "", func(obj api.Object) error {
					obj.SetLabels(map[string]string{"a": "b"})
					return nil
				})
				return err
			},
		},
		{
			"delete what is new", false,
			func(f *fixture) error { _, err := f.client.Create(f.Context(), configMap("a")); return err },
			func(f *fixture) error { _, err := f.client.Delete(f.Context(), key, nil); return err },
		},
		{
			"delete a newer revision", true,
			func(f *fixture) error { _, err := f.client.Update(f.Context(), withData("newer", "")); return err },
			func(f *fixture) error {
				newer := "2"
				_, err := f.client.Delete(f.Context(), key, &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &newer}})
				return err
			},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			if test.before {
				must(f.client.Create(t.Context(), configMap("a")))
			}
			other := f.client
			confirmed := 0
			f.client = NewClient(ClientConfig{Durable: f.durable, Propose: NewLocal(f.durable), Now: other.now, Confirm: func(context.Context) error {
				if confirmed++; confirmed > 1 {
					return nil
				}
				return test.lately(&fixture{T: t, client: other})
			}})
			if err := test.write(f); err != nil || confirmed != 1 {
				t.Errorf("%v, asked %d times", err, confirmed)
			}
		})
	}
}

// TestRefusalNeedsConfirmation checks that nothing is said of an object while nobody knows how it is.
func TestRefusalNeedsConfirmation(t *testing.T) {
	f := newFixture(t)
	must(f.client.Create(t.Context(), configMap("a")))
	asked := 0
	c := NewClient(ClientConfig{Durable: f.durable, Propose: NewLocal(f.durable), Confirm: func(context.Context) error {
		asked++
		return ErrNotLeader
	}})
	if _, err := c.Create(t.Context(), configMap("a")); !apierrors.IsServiceUnavailable(err) || asked != 1 {
		t.Errorf("%v, asked %d times", err, asked)
	}
	if _, err := c.Create(t.Context(), configMap("b")); err != nil || asked != 1 {
		t.Errorf("a write that the log decides: %v, asked %d times", err, asked)
	}
}
