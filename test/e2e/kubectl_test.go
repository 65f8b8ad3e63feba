package e2e

import (
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const widgetDefinition = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, shortNames: [wd], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}}
    additionalPrinterColumns: [{name: Colour, type: string, jsonPath: .spec.colour}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            description: What the widget should be.
            type: object
            properties:
              colour: {type: string, enum: [red, green], description: Its colour.}
              replicas: {type: integer, default: 1, minimum: 0}
          status: {type: object, properties: {replicas: {type: integer}}}
`

const (
	widget       = `{apiVersion: example.com/v1, kind: Widget, metadata: {name: w}, spec: {colour: red}}`
	badWidget    = `{apiVersion: example.com/v1, kind: Widget, metadata: {name: w}, spec: {colour: blue}}`
	oddWidget    = `{apiVersion: example.com/v1, kind: Widget, metadata: {name: w}, spec: {color: red}}`
	greenWidget  = `{apiVersion: example.com/v1, kind: Widget, metadata: {name: w}, spec: {colour: green}}`
	settings     = `{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {colour: green, size: "1"}}`
	blueSettings = `{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {colour: blue, size: "1"}}`
	plainSetting = `{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {colour: plain}}`
	web          = `{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: 2, selector: {matchLabels: {app: web}},
  template: {metadata: {labels: {app: web}}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: web:1}]}}}}`
	probe = `{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: probe}, spec: {selector: {matchLabels: {app: probe}},
  template: {metadata: {labels: {app: probe}}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: probe:1}]}}}}`
	database = `{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: db}, spec: {replicas: 2, serviceName: db, selector: {matchLabels: {app: db}},
  template: {metadata: {labels: {app: db}}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: db:1}]}},
  volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}}]}}`
)

// step is one call of kubectl.
type step struct {
	// args are split at spaces; a ~ in one becomes a space. With a ! in front the call has to fail, without one to succeed.
	args, stdin string
	// want are parts of what it prints.
	want []string
}

// kubectlSteps are the commands that no other test drives, in the order of kubectl --help. Each group leaves nothing behind.
var kubectlSteps = []struct {
	name  string
	steps []step
}{
	{"custom resources", []step{
		{"create -f -", widgetDefinition, []string{"customresourcedefinition.apiextensions.k8s.io/widgets.example.com created"}},
		{"wait --for=condition=Established crd/widgets.example.com --timeout=10s", "", []string{"condition met"}},
		{"api-resources --api-group=example.com -o wide", "", []string{"widgets", "wd", "example.com/v1", "Widget", "delete,deletecollection,get,list,patch,create,update,watch", "all"}},
		{"explain widget.spec --api-version=example.com/v1", "", []string{"What the widget should be.", "colour\t<string>", "enum: red, green", "replicas"}},
		{"explain wd --recursive", "", []string{"GROUP:      example.com", "KIND:       Widget", "status\t<Object>"}},
		{"apply -f -", widget, []string{"widget.example.com/w created"}},
		{"!apply -f -", badWidget, []string{`The Widget "w" is invalid: spec.colour: Unsupported value: "blue": supported values: "red", "green"`}},
		{"!apply -f -", oddWidget, []string{"The request is invalid: patch: Invalid value", `strict decoding error: unknown field "spec.color"`}},
		{"!diff -f -", greenWidget, []string{"-  colour: red", "+  colour: green"}},
		{"apply --server-side --force-conflicts -f -", greenWidget, []string{"serverside-applied"}},
		{"get wd", "", []string{"NAME   COLOUR", "w      green"}},
		{"get all", "", []string{"widget.example.com/w"}},
		{"scale widget/w --replicas=3", "", []string{"widget.example.com/w scaled"}},
		{"get widget w -o jsonpath={.spec}", "", []string{`{"colour":"green","replicas":3}`}},
		{`patch widget w --subresource=status --type=merge -p {"status":{"replicas":2}}`, "", []string{"patched"}},
		{"wait widget/w --for=jsonpath={.status.replicas}=2 --timeout=5s", "", []string{"condition met"}},
		{"describe widget w", "", []string{"Kind:         Widget", "Colour:    green"}},
		{"delete crd widgets.example.com", "", []string{`"widgets.example.com" deleted`}},
		{"!get --raw /apis/example.com/v1", "", []string{"Error from server (NotFound)"}},
	}},
	{"explain", []step{
		{"explain pod.spec.containers.resources", "", []string{"KIND:       Pod", "FIELD: resources <ResourceRequirements>", "limits"}},
		{"explain deployments --api-version=apps/v1", "", []string{"GROUP:      apps", "KIND:       Deployment"}},
		{"explain cronjob.spec.schedule", "", []string{"FIELD: schedule <string>", "Cron format"}},
		{"explain hpa --api-version=autoscaling/v2", "", []string{"HorizontalPodAutoscaler", "VERSION:    v2"}},
		{"!explain pod.spec.nothing", "", []string{`error: field "nothing" does not exist`}},
	}},
	{"apply", []step{
		{"apply -f -", settings, []string{"configmap/settings created"}},
		{"apply -f -", settings, []string{"configmap/settings unchanged"}},
		{"diff -f -", settings, nil},
		{"apply view-last-applied configmap/settings", "", []string{"colour: green"}},
		{"!apply --server-side --field-manager=other -f -", blueSettings, []string{"error: Apply failed with 1 conflict", `conflict with "kubectl-client-side-apply" using v1: .data.colour`}},
		{"apply --server-side --field-manager=other --force-conflicts -f -", blueSettings, []string{"configmap/settings serverside-applied"}},
		{"get configmap settings -o yaml --show-managed-fields", "", []string{"manager: other", "operation: Apply", "f:colour: {}"}},
		{"apply -f - --prune -l none=there --dry-run=server", `{apiVersion: v1, kind: ConfigMap, metadata: {name: settings, labels: {none: there}}}`, []string{"configmap/settings configured (server dry run)"}},
		{"replace -f -", plainSetting, []string{"configmap/settings replaced"}},
		{"replace --force -f -", plainSetting, []string{`configmap "settings" deleted`, "configmap/settings replaced"}},
		{"delete configmap settings --dry-run=server", "", []string{"deleted", "(server dry run)"}},
		{"delete -f -", plainSetting, []string{`configmap "settings" deleted`}},
	}},
	{"label, annotate, patch, edit", []step{
		{"create configmap note --from-literal=a=1", "", []string{"created"}},
		{"label configmap note tier=edge", "", []string{"labeled"}},
		{"!label configmap note tier=core", "", []string{"error: 'tier' already has a value (edge), and --overwrite is false"}},
		{"!label configmap note tier=core --overwrite --resource-version=1", "", []string{"Error from server (Conflict)", "the object has been modified"}},
		{"get configmaps -l tier=edge -o name", "", []string{"configmap/note"}},
		{"annotate configmap note why=test", "", []string{"annotated"}},
		{`patch configmap note --type=json -p [{"op":"replace","path":"/data/a","value":"2"}]`, "", []string{"patched"}},
		{`!patch configmap note --type=json -p [{"op":"test","path":"/data/a","value":"9"}]`, "", []string{"The request is invalid"}},
		{"edit configmap note", "", []string{"configmap/note edited"}},
		{"get configmap note -o jsonpath={.data.a}-{.metadata.labels.tier}-{.metadata.annotations.why}", "", []string{"edited-edge-test"}},
		{"edit configmap note", "", []string{"Edit cancelled, no changes made."}},
		{"label configmap note tier-", "", []string{"unlabeled"}},
		{"delete configmap note", "", []string{"deleted"}},
	}},
	{"discovery", []step{
		{"api-versions", "", []string{"apps/v1", "batch/v1", "autoscaling/v2", "rbac.authorization.k8s.io/v1", "apiextensions.k8s.io/v1"}},
		{"api-resources --namespaced=false -o name", "", []string{"nodes", "namespaces", "clusterroles.rbac.authorization.k8s.io"}},
		{"api-resources --verbs=list,get --sort-by=name", "", []string{"deployments", "deploy", "apps/v1", "true", "Deployment"}},
		{"cluster-info", "", []string{"control plane", "is running at", "https://127.0.0.1:"}},
		{"version", "", []string{"Client Version: v1.37.2", "Server Version: v1.37.2"}},
		{"get --raw /readyz", "", []string{"ok"}},
		{"top nodes", "", []string{"NAME", "CPU(cores)", "MEMORY(bytes)"}},
	}},
	{"access", []step{
		{"auth can-i --list", "", []string{"*.*", "[*]"}},
		{"create serviceaccount robot", "", []string{"created"}},
		{"create token robot --duration=10m --audience=me -o jsonpath={.status.token}", "", []string{"eyJ"}},
		{"!create token nobody", "", []string{`error: failed to create token: serviceaccounts "nobody" not found`}},
		{"!auth can-i create pods --as=system:serviceaccount:default:robot", "", []string{"no"}},
		{"delete serviceaccount robot", "", []string{"deleted"}},
	}},
	{"create", []step{
		{"create deployment d --image=web:1 --replicas=0 --dry-run=server -o jsonpath={.spec.replicas}/{.spec.strategy.type}", "", []string{"0/RollingUpdate"}},
		{"create job j --image=web:1", "", []string{"job.batch/j created"}},
		{"create cronjob c --image=web:1 --schedule=0~*~*~*~*", "", []string{"cronjob.batch/c created"}},
		{"create job once --from=cronjob/c", "", []string{"job.batch/once created"}},
		{"create service clusterip s --tcp=80:8080", "", []string{"service/s created"}},
		{"create ingress i --rule=a.example/*=s:80", "", []string{"ingress.networking.k8s.io/i created"}},
		{"create quota q --hard=pods=100", "", []string{"resourcequota/q created"}},
		{"create priorityclass p --value=7", "", []string{"priorityclass.scheduling.k8s.io/p created"}},
		{"create pdb b --selector=app=web --min-available=1", "", []string{"poddisruptionbudget.policy/b created"}},
		{"get jobs,cronjobs,services,ingresses,quota,pdb", "", []string{"job.batch/j", "cronjob.batch/c", "service/s", "ingress.networking.k8s.io/i", "resourcequota/q", "poddisruptionbudget.policy/b"}},
		{"delete job/j job/once cronjob/c service/s ingress/i quota/q priorityclass/p pdb/b", "", []string{"deleted"}},
	}},
	{"workloads", []step{
		{"create -f -", web, []string{"deployment.apps/web created"}},
		{"rollout status deployment/web --timeout=20s", "", []string{"successfully rolled out"}},
		{"wait --for=condition=Available deployment/web --timeout=5s", "", []string{"condition met"}},
		{"expose deployment web --port=80", "", []string{"service/web exposed"}},
		{"autoscale deployment web --max=3", "", []string{"horizontalpodautoscaler.autoscaling/web autoscaled"}},
		{"set image deployment/web c=web:2", "", []string{"image updated"}},
		{"rollout status deployment/web --timeout=20s", "", []string{"successfully rolled out"}},
		{"set env deployment/web A=b --dry-run=server -o jsonpath={.spec.template.spec.containers[0].env}", "", []string{`[{"name":"A","value":"b"}]`}},
		{"set resources deployment/web --limits=cpu=1", "", []string{"resource requirements updated"}},
		{"set serviceaccount deployment/web default", "", []string{"serviceaccount updated"}},
		{"rollout pause deployment/web", "", []string{"paused"}},
		{"rollout resume deployment/web", "", []string{"resumed"}},
		{"rollout restart deployment/web", "", []string{"restarted"}},
		{"rollout history deployment/web", "", []string{"REVISION"}},
		{"describe deployment web", "", []string{"StrategyType:", "web:2"}},
		{"events", "", []string{"ScalingReplicaSet"}},
		{"delete deployment/web service/web hpa/web --timeout=20s", "", []string{`deployment.apps "web" deleted`}},
		{"wait --for=delete pod -l app=web --timeout=20s", "", nil},
	}},
	{"daemon sets", []step{
		{"create -f -", probe, []string{"daemonset.apps/probe created"}},
		{"rollout status daemonset/probe --timeout=20s", "", []string{"successfully rolled out"}},
		{"set image daemonset/probe c=probe:2", "", []string{"image updated"}},
		{"rollout status daemonset/probe --timeout=20s", "", []string{"successfully rolled out"}},
		{"rollout undo daemonset/probe", "", []string{"rolled back"}},
		{"rollout history daemonset/probe", "", []string{"REVISION", "3"}},
		{"get daemonset probe -o jsonpath={.spec.template.spec.containers[0].image}/{.status.desiredNumberScheduled}", "", []string{"probe:1/1"}},
		{"delete daemonset probe --timeout=20s", "", []string{"deleted"}},
		{"wait --for=delete pod -l app=probe --timeout=20s", "", nil},
	}},
	{"stateful sets", []step{
		{"create -f -", database, []string{"statefulset.apps/db created"}},
		{"rollout status statefulset/db --timeout=20s", "", []string{"2 new pods have been updated"}},
		{"set image statefulset/db c=db:2", "", []string{"image updated"}},
		{"rollout status statefulset/db --timeout=20s", "", []string{"2 new pods have been updated"}},
		{"get pods -l app=db", "", []string{"db-0", "db-1"}},
		{"get pvc", "", []string{"data-db-0", "data-db-1", "Bound"}},
		{"scale statefulset/db --replicas=1", "", []string{"scaled"}},
		{"wait --for=delete pod/db-1 --timeout=20s", "", nil},
		{"rollout undo statefulset/db", "", []string{"rolled back"}},
		{"rollout status statefulset/db --timeout=20s", "", []string{"1 new pods have been updated"}},
		{"get pod db-0 -o jsonpath={.spec.containers[0].image}/{.spec.hostname}", "", []string{"db:1/db-0"}},
		{"delete statefulset/db pvc/data-db-0 pvc/data-db-1 --timeout=20s", "", []string{"deleted"}},
	}},
	{"nodes", []step{
		{"create -f -", web, []string{"created"}},
		{"rollout status deployment/web --timeout=20s", "", []string{"successfully rolled out"}},
		{"cordon server-1", "", []string{"node/server-1 cordoned"}},
		{"get nodes", "", []string{"Ready,SchedulingDisabled"}},
		{"drain server-1 --timeout=30s --disable-eviction", "", []string{"deleted", "node/server-1 drained"}},
		{"wait pod -l app=web --for=condition=PodScheduled=False --timeout=10s", "", []string{"condition met"}},
		{"uncordon server-1", "", []string{"node/server-1 uncordoned"}},
		{"rollout status deployment/web --timeout=20s", "", []string{"successfully rolled out"}},
		{"taint nodes server-1 key=value:NoExecute", "", []string{"node/server-1 tainted"}},
		{"taint nodes server-1 key-", "", []string{"node/server-1 untainted"}},
		{"describe node server-1", "", []string{"Roles:", "Conditions:", "Capacity:"}},
		{"delete deployment web", "", []string{"deleted"}},
	}},
}

// TestKubectl drives commands of the real kubectl against a server in this process whose pods only look as if they ran.
func TestKubectl(t *testing.T) {
	b := newAccessBed(t)
	editor := filepath.Join(b.home, "editor")
	if err := os.WriteFile(editor, []byte("#!/bin/sh\nsed -i 's/a: \"2\"/a: edited/' \"$1\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	b.env = []string{"KUBE_EDITOR=" + editor}
	b.want("wait --for=condition=Ready node/server-1 --timeout=20s", "condition met")
	for _, group := range kubectlSteps {
		t.Run(group.name, func(t *testing.T) {
			for _, s := range group.steps {
				if !b.step(t, s) {
					return
				}
			}
		})
	}
	t.Run("certificates", func(t *testing.T) { signingRequest(t, b) })
}

// step reports whether the step went as it should; the next ones build on it.
func (b *accessBed) step(t *testing.T, s step) bool {
	t.Helper()
	line, fails := strings.CutPrefix(s.args, "!")
	args := strings.Fields(line)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "~", " ")
	}
	cmd := b.command(args...)
	cmd.Stdin = strings.NewReader(s.stdin)
	out, err := cmd.CombinedOutput()
	if fails != (err != nil) {
		t.Errorf("kubectl %s: %v\n%s", line, err, out)
		return false
	}
	for _, part := range s.want {
		if !strings.Contains(string(out), part) {
			t.Errorf("kubectl %s: %q is not in\n%s", line, part, out)
			return false
		}
	}
	return true
}

// signingRequest is what an administrator does with requests for certificates.
func signingRequest(t *testing.T, b *accessBed) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(nil, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "jane"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	request := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	manifest := fmt.Sprintf(`{apiVersion: certificates.k8s.io/v1, kind: CertificateSigningRequest, metadata: {name: %%s}, spec: {
  request: %s, signerName: kubernetes.io/kube-apiserver-client, usages: [client auth]}}`, request)
	for _, s := range []step{
		{"create -f -", fmt.Sprintf(manifest, "good"), []string{"created"}},
		{"create -f -", fmt.Sprintf(manifest, "bad"), []string{"created"}},
		{"get csr", "", []string{"good", "kubernetes.io/kube-apiserver-client", "Pending"}},
		{"certificate approve good", "", []string{"certificatesigningrequest.certificates.k8s.io/good approved"}},
		{"certificate deny bad", "", []string{"certificatesigningrequest.certificates.k8s.io/bad denied"}},
		{"get csr", "", []string{"Approved", "Denied"}},
		{"!certificate approve bad", "", []string{"error"}},
		{"delete csr good bad", "", []string{"deleted"}},
	} {
		if !b.step(t, s) {
			return
		}
	}
}

func (b *accessBed) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(b.Context(), b.kubectl, args...)
	cmd.Env = append([]string{"KUBECONFIG=" + b.kubeconfig, "HOME=" + b.home, "PATH=" + os.Getenv("PATH")}, b.env...)
	return cmd
}
