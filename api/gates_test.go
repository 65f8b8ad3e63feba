package api_test

import (
	"testing"

	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/component-base/featuregate"
	"k8s.io/kubernetes/pkg/features"
)

// TestGates holds what the strategies take for granted against the defaults of upstream's feature gates: a gate that another
// version turns is to be looked at.
func TestGates(t *testing.T) {
	for gate, want := range map[featuregate.Feature]bool{
		features.HPAScaleToZero: true, features.WorkloadWithJob: false, features.InPlacePodVerticalScalingSchedulerPreemption: false,
		features.HPAGeneration: true, features.HPAConfigurableTolerance: true, features.MaxUnavailableStatefulSet: true,
		features.StatefulSetRecreateStrategy: false, features.JobManagedBy: true, features.MutablePodResourcesForSuspendedJobs: true,
		features.MutableSchedulingDirectivesForSuspendedJobs: true, features.ServiceCIDRStatusFieldWiping: true,
		features.PreferSameTrafficDistribution: true, features.SELinuxMountReadWriteOncePod: true,
		features.MutableCSINodeAllocatableCount: true, features.CSIServiceAccountTokenSecrets: true, features.VolumeLimitScaling: true,
		features.CSIVolumeHealth: false,
	} {
		if got := utilfeature.DefaultFeatureGate.Enabled(gate); got != want {
			t.Errorf("%s is %t by default", gate, got)
		}
	}
}
