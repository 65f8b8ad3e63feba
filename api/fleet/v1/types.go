// Package v1 owns the kinds of fleet.shoal.dev/v1: a Rollout, which brings a release of firmware or apps to the fleet in waves.
package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	"github.com/shoal-edge/shoal/api/tagged"
)

// GroupVersion is the group and version of these kinds.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: "fleet.shoal.dev", Version: "v1"}
}

// Rollout brings a release to devices and workloads, wave by wave, each wave only after the one before has proved itself.
type Rollout struct {
	metav1.TypeMeta `json:",inline"`
	// Standard object's metadata.
	metav1.ObjectMeta `json:"metadata,omitempty" protobuf:"bytes,1,opt,name=metadata"`
	// spec is what is wanted.
	Spec RolloutSpec `json:"spec" protobuf:"bytes,2,opt,name=spec"`
	// status is how far it is. All that the next leader needs is here and in the DeviceFirmware objects.
	Status RolloutStatus `json:"status,omitempty" protobuf:"bytes,3,opt,name=status"`
}

// RolloutSpec is what is wanted of a rollout.
type RolloutSpec struct {
	// release is the name of the Release. It never changes.
	Release string `json:"release" protobuf:"bytes,1,opt,name=release"`
	// selector picks the devices by the labels of their nodes. Absent: all that the release is for. It never changes.
	Selector *metav1.LabelSelector `json:"selector,omitempty" protobuf:"bytes,2,opt,name=selector"`
	// waves are the steps. Default: a canary of one device for each hardware, but no more than one in a hundred; then 5, 25 and 100 percent.
	// Of a workload they are as many of its pods.
	Waves []Wave `json:"waves,omitempty" protobuf:"bytes,3,rep,name=waves"`
	// maxUnavailable is how many devices of one site may be down for the update at once, a number or a percentage of the site's, of
	// which there is always one. Default: 10%.
	MaxUnavailable *intstr.IntOrString `json:"maxUnavailable,omitempty" protobuf:"bytes,4,opt,name=maxUnavailable"`
	// siteLabel is the label of nodes that says which site a device is at. Default: topology.kubernetes.io/zone.
	SiteLabel string `json:"siteLabel,omitempty" protobuf:"bytes,5,opt,name=siteLabel"`
	// lostAfter is how long a device may be silent after it was told to restart before it counts as lost. Default: 30m.
	LostAfter *metav1.Duration `json:"lostAfter,omitempty" protobuf:"bytes,6,opt,name=lostAfter"`
	// maxNotStarted is how many devices of a wave may be pending, as those that are away, for the next wave to begin; with more, the rollout is
	// held until they are back or a person approves the next wave. A number or a percentage. Default: 20%.
	MaxNotStarted *intstr.IntOrString `json:"maxNotStarted,omitempty" protobuf:"bytes,7,opt,name=maxNotStarted"`
	// allowQuorumLoss lets a server restart although the others are too few to agree, as the only server of a cluster always has to.
	AllowQuorumLoss bool `json:"allowQuorumLoss,omitempty" protobuf:"varint,8,opt,name=allowQuorumLoss"`
	// health is what each device checks before it keeps the release.
	Health firmwarev1.Health `json:"health,omitempty" protobuf:"bytes,9,opt,name=health"`
	// window is when devices may restart.
	Window *firmwarev1.Window `json:"window,omitempty" protobuf:"bytes,10,opt,name=window"`
	// paused stops everything that has not gone beyond return.
	Paused bool `json:"paused,omitempty" protobuf:"varint,11,opt,name=paused"`
	// aborted ends the rollout. Devices that have the release keep it; workloads get their former images back.
	Aborted bool `json:"aborted,omitempty" protobuf:"varint,12,opt,name=aborted"`
	// retries, counted up, has the devices that failed or were lost try once more.
	Retries int32 `json:"retries,omitempty" protobuf:"varint,13,opt,name=retries"`
	// skip names devices that are left out: not begun with, not waited for and not counted.
	Skip []string `json:"skip,omitempty" protobuf:"bytes,14,rep,name=skip"`
	// approved names the waves that a person lets begin.
	Approved []string `json:"approved,omitempty" protobuf:"bytes,15,rep,name=approved"`
	// gates are asked while a wave soaks: what they measure has to be good for the next wave to begin, and halts the rollout if it is bad.
	Gates []Gate `json:"gates,omitempty" protobuf:"bytes,16,rep,name=gates"`
}

// Gate is a question to something else than the devices. One that gives no answer holds the next wave up and halts nothing: the uplink may
// be away. It is asked by the server that leads. Either webhook or metric is set.
type Gate struct {
	// name is unique in the rollout.
	Name string `json:"name" protobuf:"bytes,1,opt,name=name"`
	// waves names those that it is asked for. Empty: all.
	Waves []string `json:"waves,omitempty" protobuf:"bytes,2,rep,name=waves"`
	// every is how often it is asked. Default: 1m.
	Every *metav1.Duration `json:"every,omitempty" protobuf:"bytes,3,opt,name=every"`
	// haltFailed is how many bad answers in a row halt the rollout. Default: 1.
	HaltFailed int32 `json:"haltFailed,omitempty" protobuf:"varint,4,opt,name=haltFailed"`
	// webhook is a URL to which the rollout's name, release, wave and counts are posted as JSON. A status of 2xx is a good answer, one of 4xx a bad
	// one, with the beginning of the body as its reason.
	Webhook string `json:"webhook,omitempty" protobuf:"bytes,5,opt,name=webhook"`
	// metric is a query of Prometheus' HTTP API.
	Metric *Metric `json:"metric,omitempty" protobuf:"bytes,6,opt,name=metric"`
}

// Metric is a query whose value has to be within bounds.
type Metric struct {
	// url is that of the server, without /api/v1/query.
	URL string `json:"url" protobuf:"bytes,1,opt,name=url"`
	// query is in PromQL, and has one value.
	Query string `json:"query" protobuf:"bytes,2,opt,name=query"`
	// min and max are the bounds, decimal numbers. One of them is set at least.
	Min string `json:"min,omitempty" protobuf:"bytes,3,opt,name=min"`
	Max string `json:"max,omitempty" protobuf:"bytes,4,opt,name=max"`
}

// Answer is what a gate has said last.
type Answer struct {
	Gate string `json:"gate" protobuf:"bytes,1,opt,name=gate"`
	// wave and generation are those that it was asked for: an edit of the rollout has it asked anew.
	Wave       int32 `json:"wave" protobuf:"varint,2,opt,name=wave"`
	Generation int64 `json:"generation" protobuf:"varint,3,opt,name=generation"`
	// good is the answer, bad how many were bad in a row. With neither there was none.
	Good bool  `json:"good,omitempty" protobuf:"varint,4,opt,name=good"`
	Bad  int32 `json:"bad,omitempty" protobuf:"varint,5,opt,name=bad"`
	// why is a sentence for people.
	Why string `json:"why,omitempty" protobuf:"bytes,6,opt,name=why"`
}

// Wave is one step of a rollout.
type Wave struct {
	// name is unique in the rollout.
	Name string `json:"name" protobuf:"bytes,1,opt,name=name"`
	// percent of all devices that have begun when this wave has. Absent in a canary wave.
	Percent int32 `json:"percent,omitempty" protobuf:"varint,2,opt,name=percent"`
	// canary makes this a wave of one device for each hardware and of one in a hundred devices at most, and one at least.
	Canary bool `json:"canary,omitempty" protobuf:"varint,3,opt,name=canary"`
	// haltFailed is how many failed or lost devices of the wave halt the rollout. Default: 1 in a canary wave, else 3.
	HaltFailed int32 `json:"haltFailed,omitempty" protobuf:"varint,4,opt,name=haltFailed"`
	// haltPercent halts the rollout when more than that part of the wave's judged devices has failed or is lost, once haltAfter of them
	// are judged. Zero: never. Of the default waves 2, once 5 are judged.
	HaltPercent int32 `json:"haltPercent,omitempty" protobuf:"varint,5,opt,name=haltPercent"`
	HaltAfter   int32 `json:"haltAfter,omitempty" protobuf:"varint,6,opt,name=haltAfter"`
	// promotePercent of the wave's started devices have to have confirmed the release. Default: 100 in a canary wave, else 95.
	PromotePercent int32 `json:"promotePercent,omitempty" protobuf:"varint,7,opt,name=promotePercent"`
	// soak is how long that has to last before the next wave begins. Defaults: 30m, 2h, 12h, and nothing after the last wave.
	Soak *metav1.Duration `json:"soak,omitempty" protobuf:"bytes,8,opt,name=soak"`
	// approval asks a person before the wave begins.
	Approval bool `json:"approval,omitempty" protobuf:"varint,9,opt,name=approval"`
}

// Phase is where a rollout stands.
type Phase string

// The phases of a rollout. Held, AwaitingApproval, Halted and Paused wait for a person.
const (
	Progressing      Phase = "Progressing"
	Soaking          Phase = "Soaking"
	AwaitingApproval Phase = "AwaitingApproval"
	Held             Phase = "Held"
	Paused           Phase = "Paused"
	Halted           Phase = "Halted"
	Completed        Phase = "Completed"
	Aborted          Phase = "Aborted"
	Invalid          Phase = "Invalid"
)

// RolloutStatus is how far a rollout is.
type RolloutStatus struct {
	// observedGeneration is the generation of the spec that the rest is about.
	ObservedGeneration int64 `json:"observedGeneration,omitempty" protobuf:"varint,1,opt,name=observedGeneration"`
	// phase is where it stands, why a sentence for people.
	Phase Phase  `json:"phase,omitempty" protobuf:"bytes,2,opt,name=phase"`
	Why   string `json:"why,omitempty" protobuf:"bytes,3,opt,name=why"`
	// wave is the index of the last wave that has begun.
	Wave int32 `json:"wave" protobuf:"varint,4,opt,name=wave"`
	// soaked is how long that wave has proved itself, added up by the leaders' monotonic clocks: no step of a clock ends a soak.
	Soaked metav1.Duration `json:"soaked,omitempty" protobuf:"bytes,5,opt,name=soaked"`
	// haltedGeneration is the generation of the spec at which the rollout was halted: only an edit of the spec lets it go on.
	HaltedGeneration int64 `json:"haltedGeneration,omitempty" protobuf:"varint,6,opt,name=haltedGeneration"`
	// retries is how many of spec.retries were followed.
	Retries int32 `json:"retries,omitempty" protobuf:"varint,7,opt,name=retries"`
	// The devices, by how they stand.
	Counts `json:",inline" protobuf:"bytes,8,opt,name=counts"`
	// waves are the same for each wave.
	Waves []WaveStatus `json:"waves,omitempty" protobuf:"bytes,9,rep,name=waves"`
	// completionTime is when the last device was done.
	CompletionTime *metav1.Time `json:"completionTime,omitempty" protobuf:"bytes,10,opt,name=completionTime"`
	// workloads are the release's, in its order.
	Workloads []WorkloadStatus `json:"workloads,omitempty" protobuf:"bytes,11,rep,name=workloads"`
	// answers are those of the gates, in their order.
	Answers []Answer `json:"answers,omitempty" protobuf:"bytes,12,rep,name=answers"`
}

// WorkloadStatus is how one workload of the release stands.
type WorkloadStatus struct {
	Kind      string `json:"kind" protobuf:"bytes,1,opt,name=kind"`
	Namespace string `json:"namespace" protobuf:"bytes,2,opt,name=namespace"`
	Name      string `json:"name" protobuf:"bytes,3,opt,name=name"`
	// pods is how many it is to have, and allowed how many of them may have the release by now.
	Pods    int32 `json:"pods" protobuf:"varint,4,opt,name=pods"`
	Allowed int32 `json:"allowed" protobuf:"varint,5,opt,name=allowed"`
	// updated have the release and are available; failed have it and do not run.
	Updated int32 `json:"updated" protobuf:"varint,6,opt,name=updated"`
	Failed  int32 `json:"failed" protobuf:"varint,7,opt,name=failed"`
	// done: it has the release for good, and the rollout has let go of it.
	Done bool `json:"done,omitempty" protobuf:"varint,8,opt,name=done"`
	// why says what it waits for.
	Why string `json:"why,omitempty" protobuf:"bytes,9,opt,name=why"`
}

// Counts are numbers of devices, and of the pods of workloads.
type Counts struct {
	// devices is all of them. Those that are not begun with belong to a wave only as far as it is planned.
	Devices int32 `json:"devices" protobuf:"varint,1,opt,name=devices"`
	// pending have not begun: they are away, or have not answered yet.
	Pending int32 `json:"pending" protobuf:"varint,2,opt,name=pending"`
	// updating are on their way.
	Updating int32 `json:"updating" protobuf:"varint,3,opt,name=updating"`
	// updated run the release and have confirmed it.
	Updated int32 `json:"updated" protobuf:"varint,4,opt,name=updated"`
	// failed have refused it, could not write it or have fallen back.
	Failed int32 `json:"failed" protobuf:"varint,5,opt,name=failed"`
	// lost were told to restart and have not been heard of since.
	Lost int32 `json:"lost" protobuf:"varint,6,opt,name=lost"`
}

// WaveStatus is how one wave stands.
type WaveStatus struct {
	Name   string `json:"name" protobuf:"bytes,1,opt,name=name"`
	Counts `json:",inline" protobuf:"bytes,2,opt,name=counts"`
	// startTime is when it began, promotionTime when it had proved itself.
	StartTime     *metav1.Time `json:"startTime,omitempty" protobuf:"bytes,3,opt,name=startTime"`
	PromotionTime *metav1.Time `json:"promotionTime,omitempty" protobuf:"bytes,4,opt,name=promotionTime"`
}

// RolloutList is a list of rollouts.
type RolloutList struct {
	metav1.TypeMeta `json:",inline"`
	// Standard list metadata.
	metav1.ListMeta `json:"metadata,omitempty" protobuf:"bytes,1,opt,name=metadata"`
	// items are the rollouts.
	Items []Rollout `json:"items" protobuf:"bytes,2,rep,name=items"`
}

// DeepCopy returns a copy of its own.
func (in *Rollout) DeepCopy() *Rollout { return tagged.Copy(in) }

// DeepCopyObject implements runtime.Object.
func (in *Rollout) DeepCopyObject() runtime.Object { return tagged.Copy(in) }

// DeepCopy returns a copy of its own.
func (in *RolloutStatus) DeepCopy() *RolloutStatus { return tagged.Copy(in) }

// Marshal makes the Protobuf form.
func (in *Rollout) Marshal() ([]byte, error) { return tagged.Marshal(in) }

// Unmarshal reads the Protobuf form.
func (in *Rollout) Unmarshal(data []byte) error { return tagged.Unmarshal(data, in) }

// DeepCopyObject implements runtime.Object.
func (in *RolloutList) DeepCopyObject() runtime.Object { return tagged.Copy(in) }

// Marshal makes the Protobuf form.
func (in *RolloutList) Marshal() ([]byte, error) { return tagged.Marshal(in) }

// Unmarshal reads the Protobuf form.
func (in *RolloutList) Unmarshal(data []byte) error { return tagged.Unmarshal(data, in) }
