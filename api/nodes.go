package api

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/core"
	corev1defaults "k8s.io/kubernetes/pkg/apis/core/v1"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
)

func nodes() *Kind {
	node := corev1.NodeSystemInfo{}.SwaggerDoc()
	addresses := corev1.NodeStatus{}.SwaggerDoc()["addresses"]
	return install[corev1.Node](&Kind{
		GVK:          corev1.SchemeGroupVersion.WithKind("Node"),
		Resource:     "nodes",
		Singular:     "node",
		ShortNames:   []string{"no"},
		Verbs:        crud(),
		Subresources: []string{"proxy", "status"},
		New:          func() Object { return &corev1.Node{} },
		NewList:      func() runtime.Object { return &corev1.NodeList{} },
		Default:      func(o Object) { corev1defaults.SetObjectDefaults_Node(o.(*corev1.Node)) },
		Fields: func(o Object) map[string]string {
			return map[string]string{"spec.unschedulable": fmt.Sprint(o.(*corev1.Node).Spec.Unschedulable)}
		},
		Columns: []Column{
			nameColumn(), text("Status", "The status of the node"), text("Roles", "The roles of the node"), ageColumn(),
			text("Version", node["kubeletVersion"]), wide("Internal-IP", addresses), wide("External-IP", addresses),
			wide("OS-Image", node["osImage"]), wide("Kernel-Version", node["kernelVersion"]),
			wide("Container-Runtime", node["containerRuntimeVersion"]),
		},
		Row: func(o Object, now time.Time) []any { return nodeRow(o.(*corev1.Node), now) },
	}, strategy[corev1.Node, core.Node]{
		in:     corev1defaults.Convert_v1_Node_To_core_Node,
		out:    corev1defaults.Convert_core_Node_To_v1_Node,
		create: func(n *core.Node) { n.Spec.ConfigSource, n.Status.Config = nil, nil },
		update: func(n, o *core.Node) {
			n.Status = o.Status
			if o.Spec.ConfigSource == nil {
				n.Spec.ConfigSource = nil
			}
		},
		status: func(n, o *core.Node) {
			n.Spec = o.Spec
			if o.Status.Config == nil {
				n.Status.Config = nil
			}
		},
		declared: corev1defaults.Validate_Node,
		validate: corevalidation.ValidateNode,
		validateUpdate: func(n, o *core.Node) field.ErrorList {
			return append(corevalidation.ValidateNode(n), corevalidation.ValidateNodeUpdate(n, o)...)
		},
		validateStatus: corevalidation.ValidateNodeUpdate,
		warn:           func(n, _ *core.Node) []string { return nodeWarnings(n) },
	})
}

func nodeWarnings(n *core.Node) []string {
	var w []string
	if n.Spec.ConfigSource != nil {
		w = append(w, "spec.configSource: the feature is removed")
	}
	if n.Spec.DoNotUseExternalID != "" {
		w = append(w, "spec.externalID: this field is deprecated, and is unused by Kubernetes")
	}
	for i, cidr := range n.Spec.PodCIDRs {
		w = append(w, validation.GetWarningsForCIDR(field.NewPath("spec", "podCIDRs").Index(i), cidr)...)
	}
	return w
}

func nodeRow(n *corev1.Node, now time.Time) []any {
	status := "Unknown"
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
			status = "Ready"
		} else if c.Type == corev1.NodeReady {
			status = "NotReady"
		}
	}
	if n.Spec.Unschedulable {
		status += ",SchedulingDisabled"
	}
	info := n.Status.NodeInfo
	kernel := orElse(info.KernelVersion, "<unknown>")
	if info.Architecture != "" {
		kernel += " (" + info.Architecture + ")"
	}
	return []any{
		n.Name, status, orNone(strings.Join(nodeRoles(n), ",")), age(n, now), info.KubeletVersion,
		nodeAddress(n, corev1.NodeInternalIP), nodeAddress(n, corev1.NodeExternalIP),
		orElse(info.OSImage, "<unknown>"), kernel, orElse(info.ContainerRuntimeVersion, "<unknown>"),
	}
}

// nodeRoles are the roles that the node's labels give it, in either of the two forms in use.
func nodeRoles(n *corev1.Node) []string {
	var roles []string
	for key, value := range n.Labels {
		if role, ok := strings.CutPrefix(key, "node-role.kubernetes.io/"); ok && role != "" {
			roles = append(roles, role)
		} else if key == "kubernetes.io/role" && value != "" {
			roles = append(roles, value)
		}
	}
	slices.Sort(roles)
	return slices.Compact(roles)
}

func nodeAddress(n *corev1.Node, t corev1.NodeAddressType) string {
	for _, a := range n.Status.Addresses {
		if a.Type == t {
			return a.Address
		}
	}
	return "<none>"
}
