package dispatch_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
	"github.com/shoal-edge/shoal/transport"
)

func staticPod(node, uid string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "web-" + node, Namespace: "default", UID: types.UID(uid), Annotations: map[string]string{"kubernetes.io/config.mirror": uid},
		},
		Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "example.com/c"}}},
	}
	api.KindFor(p).Default(p)
	p.Status.Phase = corev1.PodRunning
	return p
}

func report(t *testing.T, p *corev1.Pod) transport.Item {
	return transport.Item{Key: "pods/" + p.Namespace + "/" + p.Name + "/" + string(p.UID), Value: []byte(encode(t, p))}
}

// The API shows a device's static pods, whatever is done to what shows them, and nothing else that a device makes up.
func TestMirrorPods(t *testing.T) {
	c := newCluster(t)
	c.node("n1", "10.0.1.0/24")
	c.node("n2", "10.0.2.0/24")
	_, link := c.device("n1")
	shown := func(name string) *corev1.Pod {
		p, _ := store.Get[corev1.Pod](c.durable, "default", name)
		return p
	}
	p := staticPod("n1", "one")
	link.Report(report(t, p))
	c.eventually("it is shown", func() bool { s := shown("web-n1"); return s != nil && s.Status.Phase == corev1.PodRunning })
	first := shown("web-n1")
	if first.Spec.NodeName != "n1" || len(first.OwnerReferences) != 1 || first.OwnerReferences[0].Kind != "Node" || first.UID == p.UID {
		t.Errorf("shown: %+v", first)
	}
	p.Status.Message = "changed"
	link.Report(report(t, p))
	c.eventually("its status changes", func() bool { return shown("web-n1").Status.Message == "changed" })
	if shown("web-n1").UID != first.UID {
		t.Error("another status made another pod")
	}
	// Somebody deletes it: the device says that it runs on.
	if _, err := c.client.Delete(t.Context(), store.KeyOf(c.durable, first), &metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(30))}); err != nil {
		t.Fatal(err)
	}
	p.Status.Message = "runs on"
	link.Report(report(t, p))
	c.eventually("it is shown anew", func() bool {
		s := shown("web-n1")
		return s != nil && s.UID != first.UID && s.DeletionTimestamp == nil && s.Status.Message == "runs on"
	})
	second := staticPod("n1", "two")
	link.Report(report(t, second))
	c.eventually("another file, another pod", func() bool {
		s := shown("web-n1")
		return s != nil && s.Annotations["kubernetes.io/config.mirror"] == "two"
	})
	link.Report(transport.Item{Key: "pods/default/web-n1/one", Deleted: true})
	link.Report(transport.Item{Key: "pods/default/web-n1/two", Deleted: true})
	c.eventually("the file is gone", func() bool { return shown("web-n1") == nil })

	c.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "default"}})
	c.pod("api", "n1", "")
	thief, robot, stranger, taker := staticPod("n1", "a"), staticPod("n1", "b"), staticPod("n2", "c"), staticPod("n1", "d")
	thief.Name, robot.Name, taker.Name = "thief", "robot", "api"
	thief.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "s"}}
	robot.Spec.ServiceAccountName = "default"
	last := staticPod("n1", "last")
	for _, p := range []*corev1.Pod{thief, robot, stranger, taker, last} {
		link.Report(report(t, p))
	}
	c.eventually("the good one", func() bool { return shown("web-n1") != nil })
	if shown("thief") != nil || shown("robot") != nil || shown("web-n2") != nil || shown("api").Annotations["kubernetes.io/config.mirror"] != "" {
		t.Error("a device made a pod that it must not make")
	}
}
