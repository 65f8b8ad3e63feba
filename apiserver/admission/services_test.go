package admission_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/apiserver/admission"
	"github.com/shoal-edge/shoal/store"
	"github.com/shoal-edge/shoal/store/addresses"
)

func serviceBed(t *testing.T, network string, first, last int32) *bed {
	return newBed(t, admission.Config{Services: admission.ServicesConfig{
		CIDR: netip.MustParsePrefix(network), FirstNodePort: first, LastNodePort: last,
	}})
}

func service(name string, change ...func(*corev1.ServiceSpec)) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns"}, Spec: corev1.ServiceSpec{
		Selector: map[string]string{"a": "b"}, Ports: []corev1.ServicePort{{Port: 80}},
	}}
	for _, f := range change {
		f(&s.Spec)
	}
	return s
}

func at(ip string) func(*corev1.ServiceSpec) { return func(s *corev1.ServiceSpec) { s.ClusterIP = ip } }

func nodePort(ports ...corev1.ServicePort) func(*corev1.ServiceSpec) {
	return func(s *corev1.ServiceSpec) { s.Type, s.Ports = corev1.ServiceTypeNodePort, ports }
}

func (b *bed) service(s *corev1.Service) *corev1.Service {
	b.t.Helper()
	made, err := b.create(s)
	if err != nil {
		b.t.Fatal(err)
	}
	return made.(*corev1.Service)
}

// invalid makes sure that a service is refused as invalid, with a text.
func (b *bed) invalid(o *corev1.Service, want string) {
	b.t.Helper()
	_, err := b.create(o)
	if !apierrors.IsInvalid(err) {
		b.t.Fatalf("%v, want invalid: %s", err, want)
	}
	if _, text, _ := strings.Cut(err.Error(), "is invalid: "); text != want {
		b.t.Errorf("%s\nwant %s", text, want)
	}
}

func (b *bed) taken() []string {
	items, _ := b.client.Reader().List(addresses.Resource, "")
	var names []string
	for _, i := range items {
		names = append(names, i.Key.Name)
	}
	return names
}

func TestServicesGetAddresses(t *testing.T) {
	b := serviceBed(t, "10.43.0.0/16", 30000, 32767)
	s := b.service(service("s"))
	ip, err := netip.ParseAddr(s.Spec.ClusterIP)
	if err != nil || !netip.MustParsePrefix("10.43.0.0/16").Contains(ip) || ip.Less(netip.MustParseAddr("10.43.1.1")) {
		t.Errorf("%q: %v", s.Spec.ClusterIP, err)
	}
	if !slices.Equal(s.Spec.ClusterIPs, []string{s.Spec.ClusterIP}) || !slices.Equal(s.Spec.IPFamilies, []corev1.IPFamily{"IPv4"}) ||
		*s.Spec.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack {
		t.Errorf("%+v", s.Spec)
	}
	a, ok := store.Get[networkingv1.IPAddress](b.client.Reader(), "", s.Spec.ClusterIP)
	if !ok || a.UID == "" || a.CreationTimestamp.IsZero() {
		t.Fatalf("%+v", a)
	}
	want := networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: "ns", Name: "s"}}
	if diff := cmp.Diff(want, a.Spec); diff != "" {
		t.Error(diff)
	}
	if errs := api.KindFor(a).Validate(a); len(errs) > 0 {
		t.Error(errs)
	}
	if _, err := b.client.Delete(t.Context(), store.KeyOf(b.client.Reader(), s), nil); err != nil {
		t.Fatal(err)
	}
	if left := b.taken(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestServicesAskForAddresses(t *testing.T) {
	b := serviceBed(t, "10.43.0.0/16", 30000, 32767)
	b.service(service("s", at("10.43.0.10")))
	b.invalid(service("t", at("10.43.0.10")), `spec.clusterIPs: Invalid value: ["10.43.0.10"]: failed to allocate IP 10.43.0.10: provided IP is already allocated`)
	b.invalid(service("t", at("10.44.0.10")),
		`spec.clusterIPs: Invalid value: ["10.44.0.10"]: failed to allocate IP 10.44.0.10: the provided network does not match the current range`)
	b.invalid(service("t", at("10.43.255.255")), `spec.clusterIPs: Invalid value: ["10.43.255.255"]: failed to allocate IP 10.43.255.255: `+
		`the provided IP (10.43.255.255) is not in the valid range. The range of valid IPs is 10.43.0.0/16`)
	b.invalid(service("t", at("fd00::1")), `spec.clusterIPs[0]: Invalid value: ["fd00::1"]: IPv6 is not configured on this cluster`)
	b.invalid(service("t", func(s *corev1.ServiceSpec) { s.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicyRequireDualStack) }),
		`spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services`)
	if got := b.taken(); !slices.Equal(got, []string{"10.43.0.10"}) {
		t.Errorf("%v", got)
	}
	b.add(&networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "more"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.44.0.0/24"}}})
	b.service(service("t", at("10.44.0.10")))
}

func TestServicesWithoutAddress(t *testing.T) {
	b := serviceBed(t, "10.43.0.0/16", 30000, 32767)
	headless := b.service(service("h", at("None")))
	if headless.Spec.ClusterIP != "None" || *headless.Spec.IPFamilyPolicy != "SingleStack" || len(headless.Spec.IPFamilies) != 1 {
		t.Errorf("%+v", headless.Spec)
	}
	free := b.service(service("f", at("None"), func(s *corev1.ServiceSpec) { s.Selector = nil }))
	if *free.Spec.IPFamilyPolicy != "RequireDualStack" || !slices.Equal(free.Spec.IPFamilies, []corev1.IPFamily{"IPv4", "IPv6"}) {
		t.Errorf("%+v", free.Spec)
	}
	name := b.service(service("n", func(s *corev1.ServiceSpec) { s.Type, s.ExternalName, s.Ports = "ExternalName", "example.com", nil }))
	if name.Spec.ClusterIP != "" || name.Spec.IPFamilies != nil || len(b.taken()) != 0 {
		t.Errorf("%+v", name.Spec)
	}
	// A name that becomes a service gets an address, and lets go of it when it becomes a name again.
	name.Spec.Type, name.Spec.ExternalName, name.Spec.Ports = "ClusterIP", "", []corev1.ServicePort{{Port: 80, Protocol: "TCP"}}
	o, err := b.update(name)
	if err != nil {
		t.Fatal(err)
	}
	made := o.(*corev1.Service)
	if got := b.taken(); !slices.Equal(got, []string{made.Spec.ClusterIP}) {
		t.Errorf("%v", got)
	}
	made.Spec.Type, made.Spec.ExternalName = "ExternalName", "example.com"
	if o, err = b.update(made); err != nil || o.(*corev1.Service).Spec.ClusterIP != "" || len(b.taken()) != 0 {
		t.Errorf("%v %v", err, b.taken())
	}
}

func TestNodePorts(t *testing.T) {
	b := serviceBed(t, "10.43.0.0/16", 30000, 30002)
	s := b.service(service("s", nodePort(corev1.ServicePort{Name: "a", Port: 53, Protocol: "TCP"}, corev1.ServicePort{Name: "b", Port: 53, Protocol: "UDP"})))
	port := s.Spec.Ports[0].NodePort
	if port < 30000 || port > 30002 || s.Spec.Ports[1].NodePort != port {
		t.Errorf("%+v", s.Spec.Ports)
	}
	b.invalid(service("t", nodePort(corev1.ServicePort{Port: 80, NodePort: port})),
		fmt.Sprintf("spec.ports[0].nodePort: Invalid value: %d: provided port is already allocated", port))
	b.invalid(service("t", nodePort(corev1.ServicePort{Port: 80, NodePort: 29999})),
		"spec.ports[0].nodePort: Invalid value: 29999: provided port is not in the valid range. The range of valid ports is 30000-30002")
	b.service(service("t", nodePort(corev1.ServicePort{Port: 80})))
	b.service(service("u", nodePort(corev1.ServicePort{Port: 80})))
	if _, err := b.create(service("v", nodePort(corev1.ServicePort{Port: 80}))); !apierrors.IsInternalError(err) ||
		!strings.Contains(err.Error(), "failed to allocate a nodePort: range is full") {
		t.Errorf("%v", err)
	}
	if len(b.taken()) != 3 {
		t.Errorf("an address is left of a service that is not there: %v", b.taken())
	}
	// An update keeps its ports; a service that wants none any more lets go of them.
	s.Spec.Ports[0].NodePort, s.Spec.Ports[1].NodePort = 0, 0
	o, err := b.update(s)
	if err != nil || o.(*corev1.Service).Spec.Ports[0].NodePort != port {
		t.Fatalf("%v %v", err, o)
	}
	s = o.(*corev1.Service)
	s.Spec.Type = corev1.ServiceTypeClusterIP
	if o, err = b.update(s); err != nil || o.(*corev1.Service).Spec.Ports[0].NodePort != 0 {
		t.Fatalf("%v %v", err, o)
	}
	b.service(service("v", nodePort(corev1.ServicePort{Port: 80, NodePort: port})))
}

// However many ask at once, nothing is given twice.
func TestNothingIsGivenTwice(t *testing.T) {
	b := serviceBed(t, "10.43.0.0/28", 30000, 30009)
	var wg sync.WaitGroup
	errs := make([]error, 20)
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = b.client.Create(t.Context(), service(fmt.Sprintf("s%d", i), nodePort(corev1.ServicePort{Port: 80})))
		})
	}
	wg.Wait()
	given := map[string]bool{}
	for _, s := range store.List[corev1.Service](b.client.Reader(), "") {
		for _, what := range []string{s.Spec.ClusterIP, fmt.Sprint(s.Spec.Ports[0].NodePort)} {
			if given[what] {
				t.Errorf("%s was given twice", what)
			}
			given[what] = true
		}
	}
	if len(given) != 20 || len(b.taken()) != 10 {
		t.Errorf("%d given, %d addresses", len(given), len(b.taken()))
	}
	for _, err := range errs {
		if err != nil && !strings.Contains(err.Error(), "range is full") {
			t.Error(err)
		}
	}
}

// A server that does not know yet that an address was given to another gives another.
func TestAStaleServerGivesAnotherAddress(t *testing.T) {
	b := serviceBed(t, "10.43.0.0/30", 30000, 30001)
	taken := ""
	b.before(func(txn store.Txn) {
		taken = txn.Ops[1].Key.Name
		value, err := api.Encode(addresses.Of(service("other"), taken))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.log.Propose(t.Context(), store.Txn{Ops: []store.Op{{Key: addresses.Key(taken), Value: value, Expect: store.Absent}}}); err != nil {
			t.Fatal(err)
		}
	})
	if s := b.service(service("s")); taken == "" || s.Spec.ClusterIP == taken || len(b.taken()) != 2 {
		t.Errorf("%s, %s was taken", s.Spec.ClusterIP, taken)
	}
}

func TestBounds(t *testing.T) {
	for network, want := range map[string][2]string{
		"10.0.0.0/30": {"10.0.0.1", "10.0.0.2"}, "10.1.0.0/16": {"10.1.0.1", "10.1.255.254"}, "fd00::/112": {"fd00::1", "fd00::ffff"},
	} {
		first, last := addresses.Bounds(netip.MustParsePrefix(network))
		if first.String() != want[0] || last.String() != want[1] {
			t.Errorf("%s: %s to %s", network, first, last)
		}
		if got := addresses.Offset(first, addresses.Distance(first, last)); got != last {
			t.Errorf("%s: %s", network, got)
		}
	}
}
