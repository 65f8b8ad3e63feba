package controllers

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

// serving makes a pod that runs somewhere of its own, with a port of a name.
func (c *cluster) serving(name, ip string, port int32, ready bool) {
	c.Helper()
	c.create(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Labels: map[string]string{"app": "web"}},
		Spec: corev1.PodSpec{NodeName: "elsewhere", Hostname: name, Subdomain: "web", Containers: []corev1.Container{{
			Name: "c", Image: "i", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: port}},
		}}},
	})
	c.setServing(name, ip, ready)
}

func (c *cluster) setServing(name, ip string, ready bool) {
	c.modify(key(pods, "default", name), "status", func(o api.Object) {
		pod := o.(*corev1.Pod)
		pod.Status.Phase, pod.Status.PodIP, pod.Status.PodIPs = corev1.PodRunning, ip, []corev1.PodIP{{IP: ip}}
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse}}
		if ready {
			pod.Status.Conditions[0].Status = corev1.ConditionTrue
		}
	})
}

// behindService is what is behind a service, by its slices and by its Endpoints object.
func (c *cluster) behindService(name string) (bySlices, byList []string) {
	for _, slice := range store.List[discoveryv1.EndpointSlice](c.durable, "default") {
		if slice.Labels[discoveryv1.LabelServiceName] != name {
			continue
		}
		for _, e := range slice.Endpoints {
			bySlices = append(bySlices, fmt.Sprintf("%s:%d %s ready=%t serving=%t ending=%t", e.Addresses[0], *slice.Ports[0].Port, e.TargetRef.Name,
				*e.Conditions.Ready, *e.Conditions.Serving, *e.Conditions.Terminating))
		}
	}
	slices.Sort(bySlices) // slices are in no order
	list, ok := store.Get[corev1.Endpoints](c.durable, "default", name)
	if !ok {
		return bySlices, nil
	}
	for _, s := range list.Subsets {
		for _, a := range s.Addresses {
			byList = append(byList, fmt.Sprintf("%s:%d", a.IP, s.Ports[0].Port))
		}
		for _, a := range s.NotReadyAddresses {
			byList = append(byList, fmt.Sprintf("(%s:%d)", a.IP, s.Ports[0].Port))
		}
	}
	return bySlices, byList
}

func (c *cluster) mustBeBehind(name string, bySlices, byList []string) {
	c.Helper()
	c.after(time.Second)
	gotSlices, gotList := c.behindService(name)
	if diff := cmp.Diff([][]string{bySlices, byList}, [][]string{gotSlices, gotList}); diff != "" {
		c.Error(diff)
	}
}

func TestEndpoints(t *testing.T) {
	inCluster(t, 0, func(c *cluster) {
		c.create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", Labels: map[string]string{"tier": "front"}}, Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("http")}},
		}})
		c.mustBeBehind("web", nil, nil)
		slice := store.List[discoveryv1.EndpointSlice](c.durable, "default")
		if i := len(slice); i != 2 { // one of it is the kubernetes service's
			t.Errorf("%d slices of a service without pods", i)
		}
		c.serving("a", "10.42.0.5", 8080, true)
		c.serving("b", "10.42.0.6", 8080, false)
		c.serving("d", "10.42.0.7", 9090, true) // the port has another number there
		c.mustBeBehind("web", []string{
			"10.42.0.5:8080 a ready=true serving=true ending=false", "10.42.0.6:8080 b ready=false serving=false ending=false",
			"10.42.0.7:9090 d ready=true serving=true ending=false",
		}, []string{"10.42.0.5:8080", "(10.42.0.6:8080)", "10.42.0.7:9090"})
		list, _ := store.Get[corev1.Endpoints](c.durable, "default", "web")
		if a := list.Subsets[0].Addresses[0]; a.Hostname != "a" || *a.NodeName != "elsewhere" || list.Labels["tier"] != "front" {
			t.Errorf("%+v %v", a, list.Labels)
		}
		c.setServing("b", "10.42.0.6", true)
		c.delete(key(pods, "default", "a")) // it takes its time
		c.modify(key(pods, "default", "d"), "", func(o api.Object) { o.SetLabels(map[string]string{"app": "other"}) })
		c.mustBeBehind("web", []string{
			"10.42.0.5:8080 a ready=false serving=true ending=true", "10.42.0.6:8080 b ready=true serving=true ending=false",
		}, []string{"10.42.0.6:8080"})

		// What somebody deletes is made anew, and what nobody needs any more goes.
		c.delete(key(endpoints, "default", "web"))
		for _, s := range store.List[discoveryv1.EndpointSlice](c.durable, "default") {
			c.delete(key(endpointSlices, "default", s.Name))
		}
		c.stepDown()
		c.lead()
		c.mustBeBehind("web", []string{
			"10.42.0.5:8080 a ready=false serving=true ending=true", "10.42.0.6:8080 b ready=true serving=true ending=false",
		}, []string{"10.42.0.6:8080"})
		c.delete(key(services, "default", "web"))
		c.after(time.Minute)
		c.mustBeBehind("web", nil, nil)
	})
}

// TestEndpointsOfMany: a slice has a hundred endpoints at most, and nothing is written when nothing changes.
func TestEndpointsOfMany(t *testing.T) {
	inCluster(t, 0, func(c *cluster) {
		c.create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default"}, Spec: corev1.ServiceSpec{
			ClusterIP: corev1.ClusterIPNone, Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}},
		}})
		for i := range 250 {
			c.serving(fmt.Sprintf("p%03d", i), fmt.Sprintf("10.42.%d.%d", i/200, 2+i%200), 8080, true)
		}
		c.after(5 * time.Second) // pods of nodes that do not exist are deleted after a while
		var sizes []string
		for _, s := range store.List[discoveryv1.EndpointSlice](c.durable, "default") {
			if s.Name != "kubernetes" {
				sizes = append(sizes, fmt.Sprint(len(s.Endpoints)))
			}
			if _, ok := s.Labels[corev1.IsHeadlessService]; !ok && strings.HasPrefix(s.Name, "web-") {
				t.Errorf("%v", s.Labels)
			}
		}
		if bySlices, byList := c.behindService("web"); len(sizes) != 3 || len(bySlices) != 250 || len(byList) != 250 {
			t.Errorf("slices of %v, %d and %d endpoints", sizes, len(bySlices), len(byList))
		}
		before := c.durable.Revision()
		c.stepDown()
		c.lead()
		c.after(5 * time.Second) // pods of nodes that do not exist are deleted after a while
		for _, s := range store.List[discoveryv1.EndpointSlice](c.durable, "default") {
			if r, err := strconv.ParseUint(s.ResourceVersion, 10, 64); err != nil || r > before {
				t.Errorf("a new leader writes %s again", s.Name)
			}
		}
	})
}
