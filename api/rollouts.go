package api

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
)

// Defaults of a rollout.
const (
	defaultLostAfter      = 30 * time.Minute
	defaultMaxUnavailable = "10%"
	defaultMaxNotStarted  = "20%"
	defaultProbation      = time.Minute
	defaultDeadline       = 10 * time.Minute
	defaultGateEvery      = time.Minute
	maxWaves              = 32
	maxGates              = 16
)

func rollouts() *Kind {
	return install[fleetv1.Rollout](&Kind{
		GVK:           fleetv1.GroupVersion().WithKind("Rollout"),
		Resource:      "rollouts",
		ShortNames:    []string{"ro"},
		Subresources:  []string{"status"},
		NeedsRevision: true,
		NewList:       func() runtime.Object { return &fleetv1.RolloutList{} },
		Columns: []Column{
			nameColumn(), text("Release", "The release that is brought to the devices."), text("Phase", "Where the rollout stands."),
			text("Wave", "The last wave that has begun, of how many."), text("Updated", "Devices that have confirmed the release, of all."),
			integer("Updating", "Devices on their way."), integer("Pending", "Devices that have not begun."),
			integer("Failed", "Devices that have failed or are lost."), ageColumn(), text("Why", "What it waits for."),
		},
	}, strategy[fleetv1.Rollout, fleetv1.Rollout]{
		in: same[fleetv1.Rollout], out: same[fleetv1.Rollout],
		defaults: func(r *fleetv1.Rollout) { defaultRollout(&r.Spec) },
		row: func(r *fleetv1.Rollout, now time.Time) []any {
			s := &r.Status
			wave := "<none>"
			if i := int(s.Wave); i < len(r.Spec.Waves) && s.Phase != "" {
				wave = fmt.Sprintf("%s %d/%d", r.Spec.Waves[i].Name, i+1, len(r.Spec.Waves))
			}
			return []any{
				r.Name, r.Spec.Release, orElse(string(s.Phase), "<new>"), wave, fmt.Sprintf("%d/%d", s.Updated, s.Devices),
				int64(s.Updating), int64(s.Pending), int64(s.Failed + s.Lost), age(r, now), s.Why,
			}
		},
		create: func(n *fleetv1.Rollout) { n.Status, n.Generation = fleetv1.RolloutStatus{}, 1 },
		update: func(n, o *fleetv1.Rollout) {
			n.Status, n.Generation = o.Status, nextGeneration(o.Generation, n.Spec, o.Spec)
		},
		status: func(n, o *fleetv1.Rollout) { n.Spec = o.Spec },
		validate: func(n *fleetv1.Rollout) field.ErrorList {
			return append(checkMeta(&n.ObjectMeta), checkRollout(&n.Spec)...)
		},
		validateUpdate: func(n, o *fleetv1.Rollout) field.ErrorList {
			errs := append(checkMetaUpdate(&n.ObjectMeta, &o.ObjectMeta), checkRollout(&n.Spec)...)
			return append(errs, checkRolloutUpdate(&n.Spec, &o.Spec)...)
		},
		validateStatus: func(n, o *fleetv1.Rollout) field.ErrorList { return checkMetaUpdate(&n.ObjectMeta, &o.ObjectMeta) },
	})
}

// defaultWaves are those of a rollout that names none.
func defaultWaves() []fleetv1.Wave {
	soak := func(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }
	return []fleetv1.Wave{
		{Name: "canary", Canary: true, Soak: soak(30 * time.Minute)},
		{Name: "5-percent", Percent: 5, HaltPercent: 2, HaltAfter: 5, Soak: soak(2 * time.Hour)},
		{Name: "25-percent", Percent: 25, HaltPercent: 2, HaltAfter: 5, Soak: soak(12 * time.Hour)},
		{Name: "all", Percent: 100, HaltPercent: 2, HaltAfter: 5},
	}
}

func defaultRollout(s *fleetv1.RolloutSpec) {
	if len(s.Waves) == 0 {
		s.Waves = defaultWaves()
	}
	for i := range s.Waves {
		w := &s.Waves[i]
		failed, promote := int32(3), int32(95)
		if w.Canary {
			failed, promote = 1, 100
		}
		if w.HaltFailed == 0 {
			w.HaltFailed = failed
		}
		if w.PromotePercent == 0 {
			w.PromotePercent = promote
		}
		defaultDuration(&w.Soak, 0)
	}
	if s.MaxUnavailable == nil {
		s.MaxUnavailable = ptr.To(intstr.FromString(defaultMaxUnavailable))
	}
	if s.MaxNotStarted == nil {
		s.MaxNotStarted = ptr.To(intstr.FromString(defaultMaxNotStarted))
	}
	if s.SiteLabel == "" {
		s.SiteLabel = corev1.LabelTopologyZone
	}
	for i := range s.Gates {
		defaultDuration(&s.Gates[i].Every, defaultGateEvery)
		if s.Gates[i].HaltFailed == 0 {
			s.Gates[i].HaltFailed = 1
		}
	}
	defaultDuration(&s.LostAfter, defaultLostAfter)
	defaultHealth(&s.Health)
}

func defaultHealth(h *firmwarev1.Health) {
	defaultDuration(&h.Probation, defaultProbation)
	defaultDuration(&h.Deadline, defaultDeadline)
	defaultDuration(&h.Reconnect, 0)
	if h.Pods == nil {
		h.Pods = ptr.To(true)
	}
}

func checkRollout(s *fleetv1.RolloutSpec) field.ErrorList {
	path := field.NewPath("spec")
	var errs field.ErrorList
	if s.Release == "" {
		errs = append(errs, field.Required(path.Child("release"), ""))
	}
	errs = append(errs, metav1validation.ValidateLabelSelector(s.Selector, metav1validation.LabelSelectorValidationOptions{}, path.Child("selector"))...)
	errs = append(errs, checkWaves(s.Waves, path.Child("waves"))...)
	errs = append(errs, checkAmount(s.MaxUnavailable, 1, path.Child("maxUnavailable"))...)
	errs = append(errs, checkAmount(s.MaxNotStarted, 0, path.Child("maxNotStarted"))...)
	errs = append(errs, metav1validation.ValidateLabelName(s.SiteLabel, path.Child("siteLabel"))...)
	errs = append(errs, notNegative(s.LostAfter, path.Child("lostAfter"))...)
	errs = append(errs, checkHealth(&s.Health, path.Child("health"))...)
	errs = append(errs, checkWindow(s.Window, path.Child("window"))...)
	errs = append(errs, checkGates(s, path.Child("gates"))...)
	errs = append(errs, atLeast(0, int64(s.Retries), path.Child("retries"))...)
	return append(errs, distinct(s.Skip, path.Child("skip"))...)
}

func checkWaves(waves []fleetv1.Wave, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(waves) > maxWaves {
		errs = append(errs, field.TooMany(path, len(waves), maxWaves))
	}
	names, before := make([]string, len(waves)), int32(0)
	for i := range waves {
		w, at := &waves[i], path.Index(i)
		names[i] = w.Name
		switch {
		case w.Canary && i > 0:
			errs = append(errs, field.Invalid(at.Child("canary"), true, "only the first wave is one of canaries"))
		case w.Canary && w.Percent != 0:
			errs = append(errs, field.Forbidden(at.Child("percent"), "a wave of canaries has its own size"))
		case !w.Canary:
			errs = append(errs, within(int64(before)+1, 100, int64(w.Percent), at.Child("percent"))...)
		}
		before = max(before, w.Percent)
		errs = append(errs, atLeast(1, int64(w.HaltFailed), at.Child("haltFailed"))...)
		errs = append(errs, within(0, 100, int64(w.HaltPercent), at.Child("haltPercent"))...)
		errs = append(errs, atLeast(0, int64(w.HaltAfter), at.Child("haltAfter"))...)
		errs = append(errs, within(1, 100, int64(w.PromotePercent), at.Child("promotePercent"))...)
		errs = append(errs, notNegative(w.Soak, at.Child("soak"))...)
	}
	if n := len(waves); n > 0 && waves[n-1].Percent != 100 {
		errs = append(errs, field.Invalid(path.Index(n-1).Child("percent"), waves[n-1].Percent, "the last wave must be 100"))
	}
	return append(errs, distinct(names, path)...)
}

func checkGates(s *fleetv1.RolloutSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(s.Gates) > maxGates {
		errs = append(errs, field.TooMany(path, len(s.Gates), maxGates))
	}
	names := make([]string, len(s.Gates))
	for i := range s.Gates {
		g, at := &s.Gates[i], path.Index(i)
		names[i] = g.Name
		for j, name := range g.Waves {
			if !slices.ContainsFunc(s.Waves, func(w fleetv1.Wave) bool { return w.Name == name }) {
				errs = append(errs, field.NotFound(at.Child("waves").Index(j), name))
			}
		}
		if g.Every != nil && g.Every.Duration < time.Second {
			errs = append(errs, field.Invalid(at.Child("every"), g.Every.Duration.String(), "must be at least 1s"))
		}
		errs = append(errs, atLeast(1, int64(g.HaltFailed), at.Child("haltFailed"))...)
		switch {
		case (g.Webhook == "") == (g.Metric == nil):
			errs = append(errs, field.Required(at, "either webhook or metric"))
		case g.Webhook != "":
			errs = append(errs, checkURL(g.Webhook, at.Child("webhook"))...)
		default:
			errs = append(errs, checkGateMetric(g.Metric, at.Child("metric"))...)
		}
	}
	return append(errs, distinct(names, path)...)
}

func checkGateMetric(m *fleetv1.Metric, path *field.Path) field.ErrorList {
	errs := checkURL(m.URL, path.Child("url"))
	if m.Query == "" {
		errs = append(errs, field.Required(path.Child("query"), ""))
	}
	if m.Min == "" && m.Max == "" {
		errs = append(errs, field.Required(path.Child("max"), "a metric has a bound: min, max or both"))
	}
	for _, bound := range []struct{ name, text string }{{"min", m.Min}, {"max", m.Max}} {
		if _, err := strconv.ParseFloat(bound.text, 64); bound.text != "" && err != nil {
			errs = append(errs, field.Invalid(path.Child(bound.name), bound.text, "must be a decimal number"))
		}
	}
	return errs
}

// checkAmount checks a number or percentage of devices.
func checkAmount(n *intstr.IntOrString, least int, path *field.Path) field.ErrorList {
	if n == nil {
		return nil
	}
	if v, err := intstr.GetScaledValueFromIntOrPercent(n, 100, true); err != nil || v < least || n.Type == intstr.String && v > 100 {
		return field.ErrorList{field.Invalid(path, n.String(), fmt.Sprintf("must be a number or a percentage, at least %d", least))}
	}
	return nil
}

func checkRolloutUpdate(n, o *fleetv1.RolloutSpec) field.ErrorList {
	path := field.NewPath("spec")
	var errs field.ErrorList
	fixed := func(name string, newer, older any) {
		if !apiequality.Semantic.DeepEqual(newer, older) {
			errs = append(errs, field.Forbidden(path.Child(name), "may not change; make another rollout"))
		}
	}
	fixed("release", n.Release, o.Release)
	fixed("selector", n.Selector, o.Selector)
	fixed("waves", n.Waves, o.Waves)
	fixed("siteLabel", n.SiteLabel, o.SiteLabel)
	if n.Retries < o.Retries {
		errs = append(errs, field.Invalid(path.Child("retries"), n.Retries, "only grows"))
	}
	if o.Aborted && !n.Aborted {
		errs = append(errs, field.Forbidden(path.Child("aborted"), "what is aborted stays so; make another rollout"))
	}
	return errs
}
