package api

// The finalizers of what holds data, by upstream's names. Admission sets them, and a controller takes them away when nobody uses the object.
const (
	ClaimInUse                 = "kubernetes.io/pvc-protection"
	VolumeInUse                = "kubernetes.io/pv-protection"
	VolumeAttributesClassInUse = "kubernetes.io/vac-protection"
)
