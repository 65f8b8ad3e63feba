package admission

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	servicehelper "k8s.io/kubernetes/pkg/api/v1/service"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/store"
)

// portLedger is the key of the object that makes writes that take node ports follow each other. It is served to nobody.
func portLedger() store.Key {
	return store.Key{Resource: "nodeportledgers.internal.shoal.dev", Name: "nodeports"}
}

var errPortsFull = errors.New("range is full")

// ports are the node ports of the cluster while a service asks for some: those of all services are taken.
type ports struct {
	first, last int32
	taken       map[int32]bool
	changed     bool
}

// setPorts gives a service the node ports that it asks for, and free ones where it leaves that open.
func (al *allocator) setPorts(ctx context.Context, a *store.Admission, s, older *corev1.Service) error {
	health := servicehelper.NeedsHealthCheck(s) && (older == nil || !servicehelper.NeedsHealthCheck(older))
	onNodes := s.Spec.Type == corev1.ServiceTypeNodePort || s.Spec.Type == corev1.ServiceTypeLoadBalancer
	if !onNodes && !health || older != nil && !health && hasAllPorts(s, older) {
		return nil
	}
	if err := a.Alone(ctx, portLedger()); err != nil {
		return err
	}
	op, err := portTurn(a.Reader)
	if err != nil {
		return err
	}
	p := al.ports(a.Reader, s)
	had := map[int32]bool{}
	if older != nil {
		for _, port := range older.Spec.Ports {
			had[port.NodePort] = true
		}
	}
	if onNodes {
		if err := p.setAll(s, had); err != nil {
			return err
		}
	}
	if health {
		if err := p.setHealthCheck(s); err != nil {
			return apierrors.NewInternalError(err)
		}
	}
	if p.changed {
		a.Also(op)
	}
	return nil
}

// hasAllPorts reports whether an update asks for no port that the service had not before.
func hasAllPorts(s, older *corev1.Service) bool {
	had := map[int32]bool{0: !wantsPorts(s)}
	for _, p := range older.Spec.Ports {
		if p.NodePort != 0 {
			had[p.NodePort] = true
		}
	}
	for _, p := range s.Spec.Ports {
		if !had[p.NodePort] {
			return false
		}
	}
	return true
}

// wantsPorts leaves out load balancers that reach pods without node ports.
func wantsPorts(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeNodePort ||
		s.Spec.Type == corev1.ServiceTypeLoadBalancer && ptr.Deref(s.Spec.AllocateLoadBalancerNodePorts, true)
}

func portTurn(r store.Reader) (store.Op, error) {
	k := portLedger()
	page := metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: k.Name}}
	value, err := page.Marshal()
	op := store.Op{Key: k, Value: value, Expect: store.Absent}
	if item, ok := r.Get(k); ok {
		op.Expect = item.Revision
	}
	return op, err
}

// ports reads what all other services have.
func (al *allocator) ports(r store.Reader, but *corev1.Service) *ports {
	p := &ports{first: al.cfg.FirstNodePort, last: al.cfg.LastNodePort, taken: map[int32]bool{}}
	for _, s := range store.List[corev1.Service](r, "") {
		if s.Namespace == but.Namespace && s.Name == but.Name {
			continue
		}
		for _, port := range s.Spec.Ports {
			p.taken[port.NodePort] = true
		}
		p.taken[s.Spec.HealthCheckNodePort] = true
	}
	return p
}

// setAll completes a service's ports. The same port of two protocols gets the same node port; so may the user ask.
func (p *ports) setAll(s *corev1.Service, had map[int32]bool) error {
	own, byPort := map[int32]bool{}, map[int32]int32{}
	for _, port := range s.Spec.Ports {
		if port.NodePort != 0 && byPort[port.Port] == 0 {
			byPort[port.Port] = port.NodePort
		}
	}
	for i := range s.Spec.Ports {
		port := &s.Spec.Ports[i]
		if port.NodePort == 0 {
			if !wantsPorts(s) {
				continue
			}
			port.NodePort = byPort[port.Port]
		}
		switch {
		case port.NodePort == 0:
			n, err := p.next()
			if err != nil {
				return apierrors.NewInternalError(fmt.Errorf("failed to allocate a nodePort: %w", err))
			}
			port.NodePort, byPort[port.Port] = n, n
		case !own[port.NodePort] && !had[port.NodePort]:
			if err := p.take(port.NodePort); err != nil {
				return invalidService(s, field.Invalid(field.NewPath("spec", "ports").Index(i).Child("nodePort"), port.NodePort, err.Error()))
			}
		}
		own[port.NodePort] = true
	}
	return nil
}

func (p *ports) setHealthCheck(s *corev1.Service) error {
	if n := s.Spec.HealthCheckNodePort; n != 0 {
		if err := p.take(n); err != nil {
			return fmt.Errorf("failed to allocate requested HealthCheck NodePort %v: %w", n, err)
		}
		return nil
	}
	n, err := p.next()
	if err != nil {
		return fmt.Errorf("failed to allocate a HealthCheck NodePort %v: %w", n, err)
	}
	s.Spec.HealthCheckNodePort = n
	return nil
}

func (p *ports) take(n int32) error {
	switch {
	case n < p.first || n > p.last:
		return fmt.Errorf("provided port is not in the valid range. The range of valid ports is %d-%d", p.first, p.last)
	case p.taken[n]:
		return errors.New("provided port is already allocated")
	}
	p.taken[n], p.changed = true, true
	return nil
}

// next is a free port by chance, of the upper part of the range first: the lower part is for those who ask for a certain port.
func (p *ports) next() (int32, error) {
	size := p.last - p.first + 1
	border := p.first
	if size > 16 {
		border += min(128, max(16, size/32))
	}
	for _, part := range [][2]int32{{border, p.last}, {p.first, border - 1}} {
		width := part[1] - part[0] + 1
		if width <= 0 {
			continue
		}
		start := rand.Int32N(width)
		for i := range width {
			if n := part[0] + (start+i)%width; !p.taken[n] {
				p.taken[n], p.changed = true, true
				return n, nil
			}
		}
	}
	return 0, errPortsFull
}
