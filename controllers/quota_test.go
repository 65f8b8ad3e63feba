package controllers

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/store"
)

func TestQuotaStatusFollows(t *testing.T) {
	inCluster(t, 0, func(c *cluster) {
		hard := corev1.ResourceList{"configmaps": resource.MustParse("5"), "count/secrets": resource.MustParse("1"), "cpu": resource.MustParse("1")}
		_, err := c.client.Create(c.ctx, &corev1.ResourceQuota{
			ObjectMeta: metav1.ObjectMeta{Name: "q", Namespace: "default"}, Spec: corev1.ResourceQuotaSpec{Hard: hard},
		})
		if err != nil {
			t.Fatal(err)
		}
		is := func(maps, secrets, cpu string) {
			t.Helper()
			time.Sleep(quotaDelay)
			c.settle()
			q, _ := store.Get[corev1.ResourceQuota](c.durable, "default", "q")
			want := corev1.ResourceQuotaStatus{Hard: hard, Used: corev1.ResourceList{
				"configmaps": resource.MustParse(maps), "count/secrets": resource.MustParse(secrets), "cpu": resource.MustParse(cpu),
			}}
			if diff := cmp.Diff(want, q.Status); diff != "" {
				t.Error(diff)
			}
		}
		is("1", "0", "0") // the cluster's certificate
		meta := metav1.ObjectMeta{Name: "x", Namespace: "default"}
		p := &corev1.Pod{ObjectMeta: meta, Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "c", Image: "i", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("300m")}},
		}}}}
		for _, obj := range []api.Object{&corev1.ConfigMap{ObjectMeta: meta}, &corev1.Secret{ObjectMeta: meta}, p} {
			if _, err := c.client.Create(c.ctx, obj); err != nil {
				t.Fatal(err)
			}
		}
		is("2", "1", "300m")
		for _, k := range []store.Key{key(configMaps, "default", "x"), key(pods, "default", "x")} {
			if _, err := c.client.Delete(c.ctx, k, nil); err != nil {
				t.Fatal(err)
			}
		}
		is("1", "1", "0")
	})
}
