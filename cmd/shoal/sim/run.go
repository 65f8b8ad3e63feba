package sim

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/cmd/shoal/fleet"
	"github.com/shoal-edge/shoal/pki"
)

// run is one simulation.
func run(ctx context.Context, o options) (err error) {
	dir, fast := o.dir, o.dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "shoal-sim-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		// The devices' files in memory: a thousand devices on one disk say nothing about a device on its own.
		if fast, err = os.MkdirTemp("/dev/shm", "shoal-sim-"); err != nil {
			fast = dir
		} else {
			defer func() { err = errors.Join(err, os.RemoveAll(fast)) }()
		}
	}
	if err := raiseFiles(uint64(3*o.devices + 1000)); err != nil {
		return err
	}
	address, err := fleet.FreeAddress()
	if err != nil {
		return err
	}
	s := &server{dir: filepath.Join(dir, "server"), address: address, links: []string{o.carrier}, idle: o.idleMode(), log: o.log}
	if err := s.start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := s.ready(ctx); err != nil {
		return err
	}
	result := &result{Devices: o.devices, Carrier: o.carrier, Frugal: o.frugal, Pods: o.pods}
	if err := simulate(ctx, o, s, fast, result); err != nil {
		return err
	}
	return result.print(o)
}

// simulate has the fleet live.
func simulate(ctx context.Context, o options, s *server, dir string, r *result) (err error) {
	if err := sleep(ctx, o.settle); err != nil {
		return err
	}
	_, before, err := s.memory()
	if err != nil {
		return err
	}
	token, err := s.token(ctx)
	if err != nil {
		return err
	}
	devices := newDevices(o, dir, s.address, token)
	defer func() { err = errors.Join(err, devices.stop()) }()
	began := time.Now()
	if err := devices.start(ctx); err != nil {
		return err
	}
	if err := s.nodesReady(ctx, o.devices+1); err != nil {
		return err
	}
	r.RegisterSeconds = time.Since(began).Seconds()
	if o.pods > 0 {
		began = time.Now()
		if err := s.makePods(ctx, o.devices, o.pods); err != nil {
			return err
		}
		r.PodSeconds = time.Since(began).Seconds()
	}
	if err := sleep(ctx, o.settle); err != nil {
		return err
	}
	all, after, err := s.memory()
	if err != nil {
		return err
	}
	r.ServerBytes, r.BytesPerDevice = all, (after-before)/int64(o.devices)
	s.kube.CloseIdle() // nothing but links is left
	if r.IdleCPU, err = s.cpu(ctx, o.idle); err != nil {
		return err
	}
	if o.comeBack {
		return comeBack(ctx, o, s, r)
	}
	return nil
}

// comeBack kills the server and waits until all devices have found it again.
func comeBack(ctx context.Context, o options, s *server, r *result) error {
	if err := s.kill(); err != nil {
		return err
	}
	if err := s.start(ctx); err != nil {
		return err
	}
	began := time.Now()
	if err := s.ready(ctx); err != nil {
		return err
	}
	if err := s.linked(ctx, o.devices+1); err != nil {
		return err
	}
	r.ReturnSeconds = time.Since(began).Seconds()
	return s.nodesReady(ctx, o.devices+1)
}

// token makes a join token for the devices.
func (s *server) token(ctx context.Context) (string, error) {
	token, err := pki.NewToken(s.kube.CAHash())
	if err != nil {
		return "", err
	}
	secret := pki.NewTokenSecret(token, pki.RoleAgent, time.Now().Add(time.Hour), "shoal sim")
	secret.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}
	err = s.kube.Do(ctx, http.MethodPost, "/api/v1/namespaces/kube-system/secrets", secret, nil)
	return token.String(), err
}

// makePods gives every device its pods and waits until all run.
func (s *server) makePods(ctx context.Context, devices, each int) error {
	for d := range devices {
		for p := range each {
			pod := &corev1.Pod{
				TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
				ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", deviceName(d), p)},
				Spec: corev1.PodSpec{
					NodeName: deviceName(d), Containers: []corev1.Container{{Name: "app", Image: "registry.test/app:1"}},
				},
			}
			if err := s.kube.Do(ctx, http.MethodPost, "/api/v1/namespaces/default/pods", pod, nil); err != nil {
				return err
			}
		}
	}
	return s.await(ctx, "all pods run", func() (int, error) {
		var list corev1.PodList
		if err := s.kube.Do(ctx, http.MethodGet, "/api/v1/namespaces/default/pods?resourceVersion=0", nil, &list); err != nil {
			return 0, err
		}
		running := 0
		for i := range list.Items {
			if list.Items[i].Status.Phase == corev1.PodRunning {
				running++
			}
		}
		return running, nil
	}, devices*each)
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
