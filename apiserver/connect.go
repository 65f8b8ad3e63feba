package apiserver

import (
	"net/url"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	corev1conversion "k8s.io/kubernetes/pkg/apis/core/v1"

	"github.com/shoal-edge/shoal/apiserver/matching"
	"github.com/shoal-edge/shoal/store"
)

// admitConnection lets admission refuse a stream or a proxied request before it is opened. Logs are reads, which nobody is asked about.
func (s *Server) admitConnection(req *request, name string) error {
	if s.cfg.Admit == nil || req.sub == "log" {
		return nil
	}
	options, err := connectOptions(req)
	if err != nil {
		return err
	}
	return s.cfg.Admit(req.Context(), &matching.Request{
		Operation: store.OpConnect, As: req.kind, Sub: req.sub, Namespace: req.namespace, Name: name, Sent: options,
		User: &req.user.User, Reader: s.cfg.Client.Reader(), Hear: req,
	})
}

// admitSent lets admission refuse what was sent to a subresource that stores nothing of it.
func (s *Server) admitSent(req *request, sent runtime.Object, dryRun []string) error {
	if s.cfg.Admit == nil {
		return nil
	}
	return s.cfg.Admit(req.Context(), &matching.Request{
		Operation: store.OpCreate, As: req.kind, Sub: req.sub, Namespace: req.namespace, Name: req.name, Sent: sent, DryRun: len(dryRun) > 0,
		Options: &metav1.CreateOptions{TypeMeta: metav1.TypeMeta{Kind: "CreateOptions", APIVersion: metav1.SchemeGroupVersion.String()}, DryRun: dryRun},
		User:    &req.user.User, Reader: s.cfg.Client.Reader(), Hear: req,
	})
}

// connectOptions are what admission sees of a connection in the place of an object.
func connectOptions(req *request) (runtime.Object, error) {
	switch req.sub {
	case "exec":
		return optionsOf(req, "PodExecOptions", corev1conversion.Convert_url_Values_To_v1_PodExecOptions)
	case "attach":
		return optionsOf(req, "PodAttachOptions", corev1conversion.Convert_url_Values_To_v1_PodAttachOptions)
	case "portforward":
		return optionsOf(req, "PodPortForwardOptions", corev1conversion.Convert_url_Values_To_v1_PodPortForwardOptions)
	}
	var options runtime.Object
	switch req.kind.Resource {
	case "nodes":
		options = &corev1.NodeProxyOptions{Path: req.path}
	case "services":
		options = &corev1.ServiceProxyOptions{Path: req.path}
	default:
		options = &corev1.PodProxyOptions{Path: req.path}
	}
	options.GetObjectKind().SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(req.kind.GVK.Kind + "ProxyOptions"))
	return options, nil
}

func optionsOf[T any, P interface {
	*T
	runtime.Object
}](req *request, kind string, read func(*url.Values, *T, conversionScope) error,
) (runtime.Object, error) {
	var options T
	if err := convert(read, req.query, &options); err != nil {
		return nil, err
	}
	P(&options).GetObjectKind().SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind))
	return P(&options), nil
}
