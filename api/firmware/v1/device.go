package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/shoal-edge/shoal/api/tagged"
)

// DeviceFirmware is the firmware of one device and has the name of its node. The device writes the status, a rollout the spec.
type DeviceFirmware struct {
	metav1.TypeMeta `json:",inline"`
	// Standard object's metadata.
	metav1.ObjectMeta `json:"metadata,omitempty" protobuf:"bytes,1,opt,name=metadata"`
	// spec is what the device is told to do.
	Spec DeviceFirmwareSpec `json:"spec,omitempty" protobuf:"bytes,2,opt,name=spec"`
	// status is what the device says that it is and does.
	Status DeviceFirmwareStatus `json:"status,omitempty" protobuf:"bytes,3,opt,name=status"`
}

// DeviceFirmwareSpec is what a device is told to do.
type DeviceFirmwareSpec struct {
	// assignment is the release that the device is to install. Absent: it stays as it is.
	Assignment *Assignment `json:"assignment,omitempty" protobuf:"bytes,1,opt,name=assignment"`
	// go is the leave to restart into the release.
	Go *Go `json:"go,omitempty" protobuf:"bytes,2,opt,name=go"`
}

// Assignment tells a device to install a release.
type Assignment struct {
	// id is unique: the rollout's UID, and the attempt.
	ID string `json:"id" protobuf:"bytes,1,opt,name=id"`
	// rollout and wave are what the device is told by.
	Rollout string `json:"rollout" protobuf:"bytes,2,opt,name=rollout"`
	Wave    int32  `json:"wave" protobuf:"varint,3,opt,name=wave"`
	// attempt grows when a person has the device try a release again that it fell back from. A device tries a release once for each.
	Attempt int32 `json:"attempt" protobuf:"varint,4,opt,name=attempt"`
	// release is the name of the Release.
	Release string `json:"release" protobuf:"bytes,5,opt,name=release"`
	// version to artifact are copied from the release. A device that has a root of trust believes the release's signed metadata instead.
	Version       string      `json:"version" protobuf:"bytes,6,opt,name=version"`
	Counter       int64       `json:"counter" protobuf:"varint,7,opt,name=counter"`
	SecurityFloor int64       `json:"securityFloor,omitempty" protobuf:"varint,8,opt,name=securityFloor"`
	DataSchema    *DataSchema `json:"dataSchema,omitempty" protobuf:"bytes,9,opt,name=dataSchema"`
	Artifact      Artifact    `json:"artifact" protobuf:"bytes,10,opt,name=artifact"`
	// health is what the device checks before it keeps the release.
	Health Health `json:"health,omitempty" protobuf:"bytes,11,opt,name=health"`
	// window is when the device may restart. Absent: at any time.
	Window *Window `json:"window,omitempty" protobuf:"bytes,12,opt,name=window"`
}

// Health is what a device checks before it keeps a release.
type Health struct {
	// probation is how long all checks have to hold without a break. Default: 1m.
	Probation *metav1.Duration `json:"probation,omitempty" protobuf:"bytes,1,opt,name=probation"`
	// deadline is how long after the start they must have held for the probation, or the device falls back. Default: 10m.
	Deadline *metav1.Duration `json:"deadline,omitempty" protobuf:"bytes,2,opt,name=deadline"`
	// reconnect is how long a device that had reached the control plane before may be without it now, or it falls back. Zero: for ever.
	// The device can keep a release without a network. Default: 0.
	Reconnect *metav1.Duration `json:"reconnect,omitempty" protobuf:"bytes,3,opt,name=reconnect"`
	// commands are run by the device's shell; each has to end with status 0.
	Commands []string `json:"commands,omitempty" protobuf:"bytes,4,rep,name=commands"`
	// urls are asked on the device; each has to answer with a status below 400.
	URLs []string `json:"urls,omitempty" protobuf:"bytes,5,rep,name=urls"`
	// units are systemd units that have to be active.
	Units []string `json:"units,omitempty" protobuf:"bytes,6,rep,name=units"`
	// pods asks that the container runtime answers and every pod that the device should run is running. Default: true.
	Pods *bool `json:"pods,omitempty" protobuf:"varint,7,opt,name=pods"`
}

// Window is a part of each day, in UTC.
type Window struct {
	// start is when it begins: HH:MM.
	Start string `json:"start" protobuf:"bytes,1,opt,name=start"`
	// length is how long it lasts, less than a day.
	Length metav1.Duration `json:"length" protobuf:"bytes,2,opt,name=length"`
}

// Go is the leave to restart. It answers one question of the device and ends by itself, by the device's own monotonic clock: so it
// needs no clock that is right, cannot be kept for later, and a halt reaches a device that cannot be reached.
type Go struct {
	// nonce is what the device asked with.
	Nonce string `json:"nonce" protobuf:"bytes,1,opt,name=nonce"`
	// seconds is how long after its question the device may restart.
	Seconds int32 `json:"seconds" protobuf:"varint,2,opt,name=seconds"`
}

// State is where a device stands with its assignment.
type State string

// The states of a device. The first five leave what runs alone; from Armed until Committed a restart decides.
const (
	Idle        State = "Idle"
	Offered     State = "Offered"
	Downloading State = "Downloading"
	Staged      State = "Staged"
	Armed       State = "Armed"
	Trial       State = "Trial"
	Probation   State = "Probation"
	Committed   State = "Committed"
	Confirmed   State = "Confirmed"
	Rejected    State = "Rejected"
	WriteFailed State = "WriteFailed"
	RolledBack  State = "RolledBack"
	Recovery    State = "Recovery"
)

// DeviceFirmwareStatus is what a device says of itself.
type DeviceFirmwareStatus struct {
	// hardwareID is the kind of hardware.
	HardwareID string `json:"hardwareID,omitempty" protobuf:"bytes,1,opt,name=hardwareID"`
	// backend is how the device installs: uboot, tryboot, systemd-boot, rauc, self.
	Backend string `json:"backend,omitempty" protobuf:"bytes,2,opt,name=backend"`
	// slot, version and counter are what runs; sha256 is the content of the slot as it was verified.
	Slot    string `json:"slot,omitempty" protobuf:"bytes,3,opt,name=slot"`
	Version string `json:"version,omitempty" protobuf:"bytes,4,opt,name=version"`
	Counter int64  `json:"counter,omitempty" protobuf:"varint,5,opt,name=counter"`
	SHA256  string `json:"sha256,omitempty" protobuf:"bytes,6,opt,name=sha256"`
	// bootID is the kernel's name for this boot.
	BootID string `json:"bootID,omitempty" protobuf:"bytes,7,opt,name=bootID"`
	// assignment is the id that state, reason and message are about.
	Assignment string `json:"assignment,omitempty" protobuf:"bytes,8,opt,name=assignment"`
	State      State  `json:"state,omitempty" protobuf:"bytes,9,opt,name=state"`
	// reason is one word, message a sentence.
	Reason  string `json:"reason,omitempty" protobuf:"bytes,10,opt,name=reason"`
	Message string `json:"message,omitempty" protobuf:"bytes,11,opt,name=message"`
	// percent of the artifact that is on the device.
	Percent int32 `json:"percent,omitempty" protobuf:"varint,12,opt,name=percent"`
	// asks is the nonce with which the device asks for leave to restart.
	Asks string `json:"asks,omitempty" protobuf:"bytes,13,opt,name=asks"`
	// floor is the lowest counter that the device installs.
	Floor int64 `json:"floor,omitempty" protobuf:"varint,14,opt,name=floor"`
}

// DeviceFirmwareList is a list of devices' firmware.
type DeviceFirmwareList struct {
	metav1.TypeMeta `json:",inline"`
	// Standard list metadata.
	metav1.ListMeta `json:"metadata,omitempty" protobuf:"bytes,1,opt,name=metadata"`
	// items are the devices.
	Items []DeviceFirmware `json:"items" protobuf:"bytes,2,rep,name=items"`
}

// DeepCopy returns a copy of its own.
func (in *DeviceFirmware) DeepCopy() *DeviceFirmware { return tagged.Copy(in) }

// DeepCopyObject implements runtime.Object.
func (in *DeviceFirmware) DeepCopyObject() runtime.Object { return tagged.Copy(in) }

// Marshal makes the Protobuf form.
func (in *DeviceFirmware) Marshal() ([]byte, error) { return tagged.Marshal(in) }

// Unmarshal reads the Protobuf form.
func (in *DeviceFirmware) Unmarshal(data []byte) error { return tagged.Unmarshal(data, in) }

// DeepCopyObject implements runtime.Object.
func (in *DeviceFirmwareList) DeepCopyObject() runtime.Object { return tagged.Copy(in) }

// Marshal makes the Protobuf form.
func (in *DeviceFirmwareList) Marshal() ([]byte, error) { return tagged.Marshal(in) }

// Unmarshal reads the Protobuf form.
func (in *DeviceFirmwareList) Unmarshal(data []byte) error { return tagged.Unmarshal(data, in) }
