package cluster

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/cmd/shoal/fleet"
	"github.com/shoal-edge/shoal/pki"
)

const servicesPath = "/api/v1/namespaces/default/services"

// TestAllocationsOutliveTheLeader asks for addresses, node ports and room under a quota, all at once, of a cluster whose leader
// stops meanwhile: nothing is given twice, and the quota lets as many in as it says.
func TestAllocationsOutliveTheLeader(t *testing.T) {
	c := startFleet(t, fleet.Config{Servers: 3, Agents: 0})
	var api corev1.Service
	c.eventually("the service kubernetes is there", func() error {
		return c.kube.Do(t.Context(), http.MethodGet, servicesPath+"/kubernetes", nil, &api)
	})
	if api.Spec.ClusterIP != "10.43.0.1" {
		t.Errorf("the API's address is %s", api.Spec.ClusterIP)
	}
	c.do(http.MethodPost, "/api/v1/namespaces/default/resourcequotas", &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "q"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"services": resource.MustParse("21")}},
	}, nil)

	made := make([]bool, 30)
	round := func(from, to int) {
		var wg sync.WaitGroup
		for i := from; i < to; i++ {
			wg.Go(func() {
				s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("s%d", i)}, Spec: corev1.ServiceSpec{
					Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{{Port: 80}},
				}}
				err := c.kube.Do(t.Context(), http.MethodPost, servicesPath, s, nil)
				switch {
				case err == nil || apierrors.IsAlreadyExists(err):
					made[i] = true
				case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "exceeded quota: q, requested: services=1"):
				case apierrors.IsServiceUnavailable(err), apierrors.IsServerTimeout(err), apierrors.IsTimeout(err):
					// its fate is not known
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	round(0, 10)
	leader := c.fleet.Leader()
	for _, m := range c.fleet.Members() {
		if m.Role == pki.RoleServer && m.Name != leader {
			c.use(m)
		}
	}
	if err := c.fleet.StopMember(leader); err != nil {
		t.Fatal(err)
	}
	round(10, 30)
	for i := 0; i < 30; i++ { // what got no answer while nobody led
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("late%d", i)}, Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{{Port: 80}},
		}}
		if err := c.kube.Do(t.Context(), http.MethodPost, servicesPath, s, nil); apierrors.IsForbidden(err) {
			break
		}
	}

	var list corev1.ServiceList
	c.do(http.MethodGet, servicesPath, nil, &list)
	given := map[string]string{}
	for _, s := range list.Items {
		for _, what := range []string{s.Spec.ClusterIP, fmt.Sprint(s.Spec.Ports[0].NodePort)} {
			if other := given[what]; other != "" && what != "0" {
				t.Errorf("%s and %s both have %s", s.Name, other, what)
			}
			given[what] = s.Name
		}
	}
	if len(list.Items) != 21 {
		t.Errorf("%d services under a quota of 21", len(list.Items))
	}
	for i := range 10 {
		if !made[i] {
			t.Errorf("service %d was refused with room left", i)
		}
	}
	c.eventually("the quota says what is used", func() error {
		var q corev1.ResourceQuota
		c.do(http.MethodGet, "/api/v1/namespaces/default/resourcequotas/q", nil, &q)
		if used := q.Status.Used["services"]; used.Value() != 21 {
			return fmt.Errorf("used %s", used.String())
		}
		return nil
	})
}
