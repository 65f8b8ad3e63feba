package admission

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/core"
	corev1conversion "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

// ServicesConfig says what services get. The cluster has one family of addresses.
type ServicesConfig struct {
	// CIDR is where addresses come from while there is no ServiceCIDR object. The zero value: services get nothing.
	CIDR netip.Prefix
	// FirstNodePort and LastNodePort bound the node ports.
	FirstNodePort, LastNodePort int32
}

// allocator gives services their addresses and ports, in the transaction that writes the service.
type allocator struct{ cfg ServicesConfig }

// services allocates cluster addresses and node ports. Upstream does it where it stores services, after admission and before
// validation; so it comes last.
func services(cfg ServicesConfig) Plugin {
	if !cfg.CIDR.IsValid() {
		return Plugin{Name: "Services"}
	}
	al := &allocator{cfg}
	return Plugin{Name: "Services", Admit: al.admit, Removed: func(r store.Reader, gone api.Object) []store.Op {
		if s, ok := gone.(*corev1.Service); ok {
			return released(r, s, nil)
		}
		return nil
	}}
}

func (al *allocator) admit(ctx context.Context, a *store.Admission) error {
	s, ok := a.Object.(*corev1.Service)
	if !ok || a.Subresource != "" {
		return nil
	}
	older, _ := a.Old.(*corev1.Service)
	if err := al.setFamilies(s, older); err != nil {
		return err
	}
	if err := al.setAddresses(a, s, older); err != nil {
		return err
	}
	return al.setPorts(ctx, a, s, older)
}

func invalidService(s *corev1.Service, errs ...*field.Error) error {
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Service").GroupKind(), s.Name, errs)
}

func (al *allocator) family() corev1.IPFamily { return familyOf(al.cfg.CIDR.Addr()) }

func familyOf(a netip.Addr) corev1.IPFamily {
	if a.Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

func isHeadless(s *corev1.Service) bool { return s.Spec.ClusterIP == corev1.ClusterIPNone }

// setFamilies completes the fields that say of which family, or families, a service is, as upstream does in a cluster of one family.
func (al *allocator) setFamilies(s, older *corev1.Service) error {
	if s.Spec.Type == corev1.ServiceTypeExternalName || keepsPreference(s, older) {
		return nil
	}
	if s.Spec.IPFamilyPolicy == nil {
		switch {
		case older != nil && older.Spec.IPFamilyPolicy != nil:
			s.Spec.IPFamilyPolicy = older.Spec.IPFamilyPolicy
		case isHeadless(s) && len(s.Spec.Selector) == 0:
			s.Spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicyRequireDualStack)
		default:
			s.Spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicySingleStack)
		}
	}
	if err := checkRelated(s, older); err != nil {
		return err
	}
	errs := policyErrors(s, older)
	for i, ip := range s.Spec.ClusterIPs {
		if ip == corev1.ClusterIPNone || i < len(s.Spec.IPFamilies) {
			continue
		}
		family := corev1.IPFamily("")
		if address, err := netip.ParseAddr(ip); err == nil {
			family = familyOf(address)
		}
		if family != al.family() {
			errs = append(errs, field.Invalid(field.NewPath("spec", "clusterIPs").Index(i), s.Spec.ClusterIPs,
				fmt.Sprintf("%s is not configured on this cluster", family)))
			continue
		}
		s.Spec.IPFamilies = append(s.Spec.IPFamilies, family)
	}
	if len(errs) > 0 {
		return invalidService(s, errs...)
	}
	if isHeadless(s) && len(s.Spec.Selector) == 0 {
		al.setAnyFamilies(s)
		return nil
	}
	return al.requireFamilies(s)
}

// keepsPreference tells an update that leaves a service of one or two families, as it got them, what it is.
func keepsPreference(s, older *corev1.Service) bool {
	prefers := func(s *corev1.Service) bool {
		return ptr.Deref(s.Spec.IPFamilyPolicy, corev1.IPFamilyPolicyPreferDualStack) == corev1.IPFamilyPolicyPreferDualStack
	}
	return older != nil && older.Spec.Type != corev1.ServiceTypeExternalName && len(older.Spec.ClusterIPs) > 0 && prefers(s) && prefers(older) &&
		slices.Equal(s.Spec.ClusterIPs, older.Spec.ClusterIPs) && slices.Equal(s.Spec.IPFamilies, older.Spec.IPFamilies)
}

// checkRelated is upstream's check of the fields together, which is written for the internal type.
func checkRelated(s, older *corev1.Service) error {
	var in [2]*core.Service
	for i, service := range []*corev1.Service{s, older} {
		if service == nil {
			continue
		}
		in[i] = &core.Service{}
		if err := corev1conversion.Convert_v1_Service_To_core_Service(service, in[i], nil); err != nil {
			return err
		}
	}
	return invalidService(s, validation.ValidateServiceClusterIPsRelatedFields(in[0], in[1])...)
}

// policyErrors finds what contradicts the policy.
func policyErrors(s, older *corev1.Service) field.ErrorList {
	var errs field.ErrorList
	policy := s.Spec.IPFamilyPolicy
	refuse := func(why string) {
		errs = append(errs, field.Invalid(field.NewPath("spec", "ipFamilyPolicy"), policy, why))
	}
	single := *policy == corev1.IPFamilyPolicySingleStack
	if older != nil && single {
		if len(s.Spec.ClusterIPs) > 1 && slices.Equal(s.Spec.ClusterIPs, older.Spec.ClusterIPs) {
			s.Spec.ClusterIPs = s.Spec.ClusterIPs[:1]
		}
		if len(s.Spec.IPFamilies) > 1 && slices.Equal(s.Spec.IPFamilies, older.Spec.IPFamilies) {
			s.Spec.IPFamilies = s.Spec.IPFamilies[:1]
		}
	}
	if older != nil && !single {
		if n := len(s.Spec.ClusterIPs); n > 0 && n < len(older.Spec.ClusterIPs) {
			refuse("must be 'SingleStack' to release the secondary cluster IP")
		}
		if n := len(s.Spec.IPFamilies); n > 0 && n < len(older.Spec.IPFamilies) {
			refuse("must be 'SingleStack' to release the secondary IP family")
		}
	}
	if single && len(s.Spec.ClusterIPs) == 2 {
		refuse("must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified")
	}
	if single && len(s.Spec.IPFamilies) == 2 {
		refuse("must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified")
	}
	return errs
}

// setAnyFamilies is for services without address and selector: their endpoints are the user's, of whatever family.
func (al *allocator) setAnyFamilies(s *corev1.Service) {
	if len(s.Spec.IPFamilies) == 0 {
		s.Spec.IPFamilies = []corev1.IPFamily{al.family()}
	}
	if len(s.Spec.IPFamilies) > 1 || *s.Spec.IPFamilyPolicy == corev1.IPFamilyPolicySingleStack {
		return
	}
	other := corev1.IPv4Protocol
	if s.Spec.IPFamilies[0] == corev1.IPv4Protocol {
		other = corev1.IPv6Protocol
	}
	s.Spec.IPFamilies = append(s.Spec.IPFamilies, other)
}

func (al *allocator) requireFamilies(s *corev1.Service) error {
	var errs field.ErrorList
	if *s.Spec.IPFamilyPolicy == corev1.IPFamilyPolicyRequireDualStack {
		errs = append(errs, field.Invalid(field.NewPath("spec", "ipFamilyPolicy"), s.Spec.IPFamilyPolicy,
			"this cluster is not configured for dual-stack services"))
	}
	for i, family := range s.Spec.IPFamilies {
		if family != al.family() {
			errs = append(errs, field.Invalid(field.NewPath("spec", "ipFamilies").Index(i), family, "not configured on this cluster"))
		}
	}
	if len(errs) > 0 {
		return invalidService(s, errs...)
	}
	if len(s.Spec.IPFamilies) == 0 {
		s.Spec.IPFamilies = []corev1.IPFamily{al.family()}
	}
	return nil
}
