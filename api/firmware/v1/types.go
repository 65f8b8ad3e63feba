// Package v1 owns the kinds of firmware.shoal.dev/v1: a Release, which says what there is to install, and a DeviceFirmware for each
// device, which says what it has and what it is told to have.
package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/shoal-edge/shoal/api/tagged"
)

// GroupVersion is the group and version of these kinds.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: "firmware.shoal.dev", Version: "v1"}
}

// Release is one release of firmware, of apps, or of both that belong together: what its artifacts are, which devices may have them, and
// which images its workloads get. It never changes: a correction is another release with a higher counter.
type Release struct {
	metav1.TypeMeta `json:",inline"`
	// Standard object's metadata.
	metav1.ObjectMeta `json:"metadata,omitempty" protobuf:"bytes,1,opt,name=metadata"`
	// spec is what the release is.
	Spec ReleaseSpec `json:"spec" protobuf:"bytes,2,opt,name=spec"`
}

// ReleaseSpec is what a release is.
type ReleaseSpec struct {
	// version is the name that people give the release, such as 2.4.1.
	Version string `json:"version" protobuf:"bytes,1,opt,name=version"`
	// counter grows from release to release. A device installs nothing with a lower counter than what it has, unless it falls back by itself.
	Counter int64 `json:"counter" protobuf:"varint,2,opt,name=counter"`
	// securityFloor is the lowest counter that a device which has confirmed this release ever runs again.
	SecurityFloor int64 `json:"securityFloor,omitempty" protobuf:"varint,3,opt,name=securityFloor"`
	// hardwareIDs are the kinds of hardware that the artifacts are for, as the devices' configuration calls them.
	HardwareIDs []string `json:"hardwareIDs,omitempty" protobuf:"bytes,4,rep,name=hardwareIDs"`
	// dataSchema is what the release does to data that outlives it on the device. Absent: nothing.
	DataSchema *DataSchema `json:"dataSchema,omitempty" protobuf:"bytes,5,opt,name=dataSchema"`
	// artifacts are what devices install. Each kind of hardware has exactly one.
	Artifacts []Artifact `json:"artifacts,omitempty" protobuf:"bytes,6,rep,name=artifacts"`
	// metadata is the signed word of the release's makers (TUF). Devices that have a root of trust install nothing without it.
	Metadata *SignedMetadata `json:"metadata,omitempty" protobuf:"bytes,7,opt,name=metadata"`
	// workloads are the apps that the release brings new images to, in the same waves as the artifacts.
	Workloads []Workload `json:"workloads,omitempty" protobuf:"bytes,8,rep,name=workloads"`
}

// Workload is an app of the cluster with the images that a release has for it.
type Workload struct {
	// kind of the workload: Deployment, DaemonSet or StatefulSet.
	Kind string `json:"kind" protobuf:"bytes,1,opt,name=kind"`
	// namespace and name of the workload.
	Namespace string `json:"namespace" protobuf:"bytes,2,opt,name=namespace"`
	Name      string `json:"name" protobuf:"bytes,3,opt,name=name"`
	// images are those of its containers that change. Everything else of the workload stays as it is.
	Images []ContainerImage `json:"images" protobuf:"bytes,4,rep,name=images"`
}

// ContainerImage is the image of one container.
type ContainerImage struct {
	// container is the name of a container, or of an init container.
	Container string `json:"container" protobuf:"bytes,1,opt,name=container"`
	// image is its image. With a digest it is the same one for every pod.
	Image string `json:"image" protobuf:"bytes,2,opt,name=image"`
}

// DataSchema is a range of versions of the data on a device.
type DataSchema struct {
	// reads is the oldest version that the release can take over.
	Reads int32 `json:"reads,omitempty" protobuf:"varint,1,opt,name=reads"`
	// writes is the version that the data has once the release is confirmed. The device then runs no release that cannot read it.
	Writes int32 `json:"writes,omitempty" protobuf:"varint,2,opt,name=writes"`
}

// Artifact is one file of a release.
type Artifact struct {
	// name is unique in the release.
	Name string `json:"name" protobuf:"bytes,1,opt,name=name"`
	// type says what is done with it: an Image is written into a slot as it is, a Bundle is given to the device's installer.
	Type ArtifactType `json:"type,omitempty" protobuf:"bytes,2,opt,name=type"`
	// hardwareIDs are those of the release's that the artifact is for. Empty: all of them.
	HardwareIDs []string `json:"hardwareIDs,omitempty" protobuf:"bytes,3,rep,name=hardwareIDs"`
	// url is where devices get it: http or https.
	URL string `json:"url" protobuf:"bytes,4,opt,name=url"`
	// size is its length in bytes.
	Size int64 `json:"size" protobuf:"varint,5,opt,name=size"`
	// sha256 is the SHA-256 of its content, 64 lower-case hexadecimal digits. It is checked on the medium before the slot is used.
	SHA256 string `json:"sha256" protobuf:"bytes,6,opt,name=sha256"`
	// chunks is the same content cut into pieces, of which a device fetches those only that it does not have. Absent: devices fetch all of url.
	Chunks *Chunks `json:"chunks,omitempty" protobuf:"bytes,7,opt,name=chunks"`
}

// MaxIndex bounds the index of a pack, in bytes. That of an image of 64 GiB is as long.
const MaxIndex = 64 << 20

// Chunks is where an artifact is as a pack of pieces, which 'shoal firmware pack' makes.
type Chunks struct {
	// url is where devices get the pack: http or https, from a server that answers requests for ranges.
	URL string `json:"url" protobuf:"bytes,1,opt,name=url"`
	// size is the pack's length in bytes, of which the last indexSize are the index of the pieces.
	Size      int64 `json:"size" protobuf:"varint,2,opt,name=size"`
	IndexSize int64 `json:"indexSize" protobuf:"varint,3,opt,name=indexSize"`
	// indexSHA256 is the SHA-256 of the index, 64 lower-case hexadecimal digits.
	IndexSHA256 string `json:"indexSHA256" protobuf:"bytes,4,opt,name=indexSHA256"`
}

// ArtifactType says what is done with an artifact.
type ArtifactType string

// The types of artifacts.
const (
	Image  ArtifactType = "Image"
	Bundle ArtifactType = "Bundle"
)

// SignedMetadata is a set of TUF metadata files, as they were signed.
type SignedMetadata struct {
	// roots are the root files after the one that devices were made with, oldest first.
	Roots [][]byte `json:"roots,omitempty" protobuf:"bytes,1,rep,name=roots"`
	// timestamp, snapshot and targets are the files of these roles.
	Timestamp []byte `json:"timestamp,omitempty" protobuf:"bytes,2,opt,name=timestamp"`
	Snapshot  []byte `json:"snapshot,omitempty" protobuf:"bytes,3,opt,name=snapshot"`
	Targets   []byte `json:"targets,omitempty" protobuf:"bytes,4,opt,name=targets"`
}

// ReleaseList is a list of releases.
type ReleaseList struct {
	metav1.TypeMeta `json:",inline"`
	// Standard list metadata.
	metav1.ListMeta `json:"metadata,omitempty" protobuf:"bytes,1,opt,name=metadata"`
	// items are the releases.
	Items []Release `json:"items" protobuf:"bytes,2,rep,name=items"`
}

// DeepCopy returns a copy of its own.
func (in *Release) DeepCopy() *Release { return tagged.Copy(in) }

// DeepCopyObject implements runtime.Object.
func (in *Release) DeepCopyObject() runtime.Object { return tagged.Copy(in) }

// Marshal makes the Protobuf form.
func (in *Release) Marshal() ([]byte, error) { return tagged.Marshal(in) }

// Unmarshal reads the Protobuf form.
func (in *Release) Unmarshal(data []byte) error { return tagged.Unmarshal(data, in) }

// DeepCopyObject implements runtime.Object.
func (in *ReleaseList) DeepCopyObject() runtime.Object { return tagged.Copy(in) }

// Marshal makes the Protobuf form.
func (in *ReleaseList) Marshal() ([]byte, error) { return tagged.Marshal(in) }

// Unmarshal reads the Protobuf form.
func (in *ReleaseList) Unmarshal(data []byte) error { return tagged.Unmarshal(data, in) }

// ArtifactFor is the artifact for a kind of hardware, or nil.
func (in *ReleaseSpec) ArtifactFor(hardware string) *Artifact {
	if !contains(in.HardwareIDs, hardware) {
		return nil
	}
	for i := range in.Artifacts {
		if a := &in.Artifacts[i]; len(a.HardwareIDs) == 0 || contains(a.HardwareIDs, hardware) {
			return a
		}
	}
	return nil
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}
