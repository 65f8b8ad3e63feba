package api

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
)

func deviceFirmwares() *Kind {
	return install[firmwarev1.DeviceFirmware](&Kind{
		GVK:           firmwarev1.GroupVersion().WithKind("DeviceFirmware"),
		Resource:      "devicefirmwares",
		ShortNames:    []string{"dfw"},
		Subresources:  []string{"status"},
		NeedsRevision: true,
		NewList:       func() runtime.Object { return &firmwarev1.DeviceFirmwareList{} },
		Columns: []Column{
			nameColumn(), text("Hardware", "The kind of hardware."), text("Version", "The release that runs."), text("Slot", "The slot that runs."),
			text("Target", "The release that the device is told to have."), text("State", "Where the device stands with that."),
			text("Why", "The reason of a failure."), ageColumn(), wide("Backend", "How the device installs."),
			wide("Message", "What happened, in a sentence."),
		},
	}, strategy[firmwarev1.DeviceFirmware, firmwarev1.DeviceFirmware]{
		in: same[firmwarev1.DeviceFirmware], out: same[firmwarev1.DeviceFirmware],
		row: func(d *firmwarev1.DeviceFirmware, now time.Time) []any {
			target, state := "<none>", string(d.Status.State)
			if a := d.Spec.Assignment; a != nil {
				if target = a.Version; a.ID != d.Status.Assignment {
					state = "NotStarted"
				}
			}
			if d.Status.State == firmwarev1.Downloading {
				state = fmt.Sprintf("%s %d%%", state, d.Status.Percent)
			}
			return []any{
				d.Name, d.Status.HardwareID, orElse(d.Status.Version, "<unknown>"), d.Status.Slot, target, state, d.Status.Reason, age(d, now),
				d.Status.Backend, d.Status.Message,
			}
		},
		create: func(n *firmwarev1.DeviceFirmware) {
			n.Status, n.Generation = firmwarev1.DeviceFirmwareStatus{}, 1
		},
		update: func(n, o *firmwarev1.DeviceFirmware) {
			n.Status, n.Generation = o.Status, nextGeneration(o.Generation, n.Spec, o.Spec)
		},
		status: func(n, o *firmwarev1.DeviceFirmware) { n.Spec = o.Spec },
		validate: func(n *firmwarev1.DeviceFirmware) field.ErrorList {
			return append(checkMeta(&n.ObjectMeta), checkAssignment(n.Spec.Assignment, field.NewPath("spec", "assignment"))...)
		},
		validateUpdate: func(n, o *firmwarev1.DeviceFirmware) field.ErrorList {
			return append(checkMetaUpdate(&n.ObjectMeta, &o.ObjectMeta), checkAssignment(n.Spec.Assignment, field.NewPath("spec", "assignment"))...)
		},
		validateStatus: func(n, o *firmwarev1.DeviceFirmware) field.ErrorList {
			return checkMetaUpdate(&n.ObjectMeta, &o.ObjectMeta)
		},
	})
}

func checkAssignment(a *firmwarev1.Assignment, path *field.Path) field.ErrorList {
	if a == nil {
		return nil
	}
	var errs field.ErrorList
	for name, value := range map[string]string{"id": a.ID, "release": a.Release, "version": a.Version} {
		if value == "" {
			errs = append(errs, field.Required(path.Child(name), ""))
		}
	}
	errs = append(errs, atLeast(1, a.Counter, path.Child("counter"))...)
	errs = append(errs, checkArtifact(&a.Artifact, a.Artifact.HardwareIDs, path.Child("artifact"))...)
	errs = append(errs, checkHealth(&a.Health, path.Child("health"))...)
	return append(errs, checkWindow(a.Window, path.Child("window"))...)
}

func checkHealth(h *firmwarev1.Health, path *field.Path) field.ErrorList {
	errs := notNegative(h.Probation, path.Child("probation"))
	errs = append(errs, notNegative(h.Deadline, path.Child("deadline"))...)
	return append(errs, notNegative(h.Reconnect, path.Child("reconnect"))...)
}

func checkWindow(w *firmwarev1.Window, path *field.Path) field.ErrorList {
	if w == nil {
		return nil
	}
	var errs field.ErrorList
	if _, err := time.Parse("15:04", w.Start); err != nil {
		errs = append(errs, field.Invalid(path.Child("start"), w.Start, "must be HH:MM, in UTC"))
	}
	if d := w.Length.Duration; d <= 0 || d >= 24*time.Hour {
		errs = append(errs, field.Invalid(path.Child("length"), d.String(), "must be more than nothing and less than a day"))
	}
	return errs
}
