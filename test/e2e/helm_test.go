package e2e

import (
	"strings"
	"testing"

	"github.com/shoal-edge/shoal/test/need"
)

// helmSteps are a chart's life; want and a ! in front of args are as for kubectl's steps. The chart brings the definition of a kind
// and objects of it.
var helmSteps = []step{
	{"install shop testdata/site --wait --timeout=40s", "", []string{"STATUS: deployed", "REVISION: 1", "1 sensors on v1.37.2+shoal"}},
	{"list", "", []string{"shop", "deployed", "site-0.1.0"}},
	{"status shop", "", []string{"STATUS: deployed"}},
	{"get manifest shop", "", []string{"kind: Sensor", "name: shop-door"}},
	{"!install shop testdata/site", "", []string{"a name that is still in use"}},
	{"upgrade shop testdata/site --set replicas=3 --set greeting=hi --set sensors[0].name=door,sensors[0].pin=4,sensors[1].name=gate,sensors[1].pin=5 --wait --timeout=40s", "", []string{"REVISION: 2", "2 sensors"}},
	{"!upgrade shop testdata/site --set sensors[0].name=door,sensors[0].pin=99,sensors[1].name=gate,sensors[1].pin=5", "", []string{"should be less than or equal to 27"}},
	{"history shop", "", []string{"superseded", "deployed", "failed"}},
	{"rollback shop 1 --wait --timeout=40s", "", []string{"Rollback was a success"}},
	{"history shop", "", []string{"Rollback to 1"}},
	{"uninstall shop --wait --timeout=40s", "", []string{`release "shop" uninstalled`}},
	{"!status shop", "", []string{"not found"}},
}

// after is what kubectl finds after a step of helm's.
var after = map[string]step{
	"install":   {"get deployment,configmap,service,sensor -o name", "", []string{"deployment.apps/shop", "configmap/shop-settings", "service/shop", "sensor.site.example.com/shop-door"}},
	"upgrade":   {"get deployment/shop configmap/shop-settings sensor/shop-gate -o jsonpath={range~.items[*]}{.spec}{.data}{end}", "", []string{`"replicas":3`, `"greeting":"hi"`, `{"edge":"rising","pin":5}`}},
	"rollback":  {"get deployment/shop configmap/shop-settings sensor/shop-door -o jsonpath={range~.items[*]}{.spec}{.data}{end}", "", []string{`"replicas":2`, `"greeting":"hello"`, `"pin":4`}},
	"uninstall": {"get crd/sensors.site.example.com -o name", "", []string{"sensors.site.example.com"}},
}

// TestHelm takes a chart through its life with the real helm, against a server in this process whose pods only look as if they ran.
func TestHelm(t *testing.T) {
	helm := need.Built(t, "../..", "helm")
	b := newAccessBed(t)
	kubectl := b.kubectl
	b.env = []string{"HELM_CACHE_HOME=" + b.home, "HELM_CONFIG_HOME=" + b.home, "HELM_DATA_HOME=" + b.home}
	b.want("wait --for=condition=Ready node/server-1 --timeout=20s", "condition met")
	seen := map[string]bool{}
	for _, s := range helmSteps {
		b.kubectl = helm
		if !b.step(t, s) {
			t.FailNow()
		}
		b.kubectl = kubectl
		verb, _, _ := strings.Cut(s.args, " ")
		if check, ok := after[verb]; ok && !seen[verb] {
			seen[verb] = true
			if !b.step(t, check) {
				t.FailNow()
			}
		}
	}
	b.step(t, step{"get deployment,configmap,service,sensor -l app.kubernetes.io/managed-by=Helm", "", []string{"No resources found"}})
}
