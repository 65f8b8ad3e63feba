package api

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
)

// Bounds of a release: what a device has to hold in memory, and the log in an entry.
const (
	maxArtifacts = 64
	maxMetadata  = 256 << 10 // bytes of signed metadata in all
	maxURL       = 2048
	maxWorkloads = 64
)

func releases() *Kind {
	return install[firmwarev1.Release](&Kind{
		GVK:           firmwarev1.GroupVersion().WithKind("Release"),
		Resource:      "releases",
		ShortNames:    []string{"fwr"},
		NeedsRevision: true,
		NewList:       func() runtime.Object { return &firmwarev1.ReleaseList{} },
		Columns: []Column{
			nameColumn(), text("Version", "What people call the release."), integer("Counter", "The release's place in the order of all releases."),
			text("Hardware", "The kinds of hardware that the release is for."), boolean("Signed", "Whether the release carries its makers' signed word."),
			ageColumn(), wide("Artifacts", "The names of what there is to install."), wide("Workloads", "The apps that get new images."),
		},
	}, strategy[firmwarev1.Release, firmwarev1.Release]{
		in: same[firmwarev1.Release], out: same[firmwarev1.Release],
		defaults: func(r *firmwarev1.Release) {
			for i := range r.Spec.Artifacts {
				if r.Spec.Artifacts[i].Type == "" {
					r.Spec.Artifacts[i].Type = firmwarev1.Image
				}
			}
		},
		row: func(r *firmwarev1.Release, now time.Time) []any {
			names := make([]string, len(r.Spec.Artifacts))
			for i := range names {
				names[i] = r.Spec.Artifacts[i].Name
			}
			apps := make([]string, len(r.Spec.Workloads))
			for i := range apps {
				apps[i] = r.Spec.Workloads[i].Namespace + "/" + r.Spec.Workloads[i].Name
			}
			return []any{
				r.Name, r.Spec.Version, r.Spec.Counter, orElse(listed(r.Spec.HardwareIDs, 3), "<none>"), r.Spec.Metadata != nil, age(r, now),
				orElse(listed(names, 3), "<none>"), orElse(listed(apps, 3), "<none>"),
			}
		},
		create: func(n *firmwarev1.Release) { n.Generation = 1 },
		validate: func(n *firmwarev1.Release) field.ErrorList {
			return append(checkMeta(&n.ObjectMeta), checkRelease(&n.Spec, field.NewPath("spec"))...)
		},
		validateUpdate: func(n, o *firmwarev1.Release) field.ErrorList {
			errs := checkMetaUpdate(&n.ObjectMeta, &o.ObjectMeta)
			if !apiequality.Semantic.DeepEqual(n.Spec, o.Spec) {
				errs = append(errs, field.Forbidden(field.NewPath("spec"), "a release never changes; make another one with a higher counter"))
			}
			return errs
		},
	})
}

func checkRelease(s *firmwarev1.ReleaseSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.Version == "" {
		errs = append(errs, field.Required(path.Child("version"), ""))
	}
	errs = append(errs, atLeast(1, s.Counter, path.Child("counter"))...)
	errs = append(errs, within(0, max(0, s.Counter), s.SecurityFloor, path.Child("securityFloor"))...)
	if len(s.HardwareIDs) == 0 && len(s.Artifacts) > 0 {
		errs = append(errs, field.Required(path.Child("hardwareIDs"), "artifacts are for some hardware"))
	}
	errs = append(errs, checkHardware(s.HardwareIDs, path.Child("hardwareIDs"))...)
	if d := s.DataSchema; d != nil {
		errs = append(errs, within(0, int64(max(0, d.Writes)), int64(d.Reads), path.Child("dataSchema", "reads"))...)
	}
	if len(s.Artifacts)+len(s.Workloads) == 0 {
		errs = append(errs, field.Required(path.Child("artifacts"), "a release has artifacts, workloads or both"))
	}
	errs = append(errs, checkWorkloads(s.Workloads, path.Child("workloads"))...)
	if len(s.Artifacts) > maxArtifacts {
		errs = append(errs, field.TooMany(path.Child("artifacts"), len(s.Artifacts), maxArtifacts))
	}
	names := make([]string, len(s.Artifacts))
	for i := range s.Artifacts {
		names[i] = s.Artifacts[i].Name
		errs = append(errs, checkArtifact(&s.Artifacts[i], s.HardwareIDs, path.Child("artifacts").Index(i))...)
	}
	errs = append(errs, distinct(names, path.Child("artifacts"))...)
	for i, hardware := range s.HardwareIDs {
		if n := artifactsFor(s, hardware); n != 1 {
			errs = append(errs, field.Invalid(path.Child("hardwareIDs").Index(i), hardware, "must have exactly one artifact"))
		}
	}
	if m := s.Metadata; m != nil {
		size := len(m.Timestamp) + len(m.Snapshot) + len(m.Targets)
		for _, root := range m.Roots {
			size += len(root)
		}
		if size > maxMetadata {
			errs = append(errs, field.TooLong(path.Child("metadata"), "", maxMetadata))
		}
	}
	return errs
}

func checkWorkloads(list []firmwarev1.Workload, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(list) > maxWorkloads {
		errs = append(errs, field.TooMany(path, len(list), maxWorkloads))
	}
	names := make([]string, len(list))
	for i := range list {
		w, at := &list[i], path.Index(i)
		names[i] = w.Kind + " " + w.Namespace + "/" + w.Name
		if kinds := []string{"DaemonSet", "Deployment", "StatefulSet"}; !slices.Contains(kinds, w.Kind) {
			errs = append(errs, field.NotSupported(at.Child("kind"), w.Kind, kinds))
		}
		errs = append(errs, checkName(w.Namespace, at.Child("namespace"))...)
		errs = append(errs, checkName(w.Name, at.Child("name"))...)
		if len(w.Images) == 0 {
			errs = append(errs, field.Required(at.Child("images"), "a release brings new images"))
		}
		containers := make([]string, len(w.Images))
		for j := range w.Images {
			containers[j] = w.Images[j].Container
			if image := w.Images[j].Image; image == "" || strings.TrimSpace(image) != image {
				errs = append(errs, field.Invalid(at.Child("images").Index(j).Child("image"), image, "must be an image's name"))
			}
		}
		errs = append(errs, distinct(containers, at.Child("images"))...)
	}
	return append(errs, distinct(names, path)...)
}

func checkName(name string, path *field.Path) field.ErrorList {
	if wrong := validation.IsDNS1123Subdomain(name); len(wrong) > 0 {
		return field.ErrorList{field.Invalid(path, name, strings.Join(wrong, "; "))}
	}
	return nil
}

func artifactsFor(s *firmwarev1.ReleaseSpec, hardware string) int {
	n := 0
	for i := range s.Artifacts {
		if ids := s.Artifacts[i].HardwareIDs; len(ids) == 0 || slices.Contains(ids, hardware) {
			n++
		}
	}
	return n
}

func checkHardware(ids []string, path *field.Path) field.ErrorList {
	errs := distinct(ids, path)
	for i, id := range ids {
		if wrong := validation.IsValidLabelValue(id); id != "" && len(wrong) > 0 {
			errs = append(errs, field.Invalid(path.Index(i), id, strings.Join(wrong, "; ")))
		}
	}
	return errs
}

func checkURL(text string, path *field.Path) field.ErrorList {
	if u, err := url.Parse(text); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || len(text) > maxURL {
		return field.ErrorList{field.Invalid(path, text, "must be an http or https URL")}
	}
	return nil
}

// digest is a SHA-256 as artifacts have it.
var digest = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile("^[0-9a-f]{64}$") })

func checkArtifact(a *firmwarev1.Artifact, hardware []string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if a.Type != firmwarev1.Image && a.Type != firmwarev1.Bundle {
		errs = append(errs, field.NotSupported(path.Child("type"), a.Type, []firmwarev1.ArtifactType{firmwarev1.Image, firmwarev1.Bundle}))
	}
	for i, id := range a.HardwareIDs {
		if !slices.Contains(hardware, id) {
			errs = append(errs, field.Invalid(path.Child("hardwareIDs").Index(i), id, "is not one of the release's"))
		}
	}
	errs = append(errs, checkURL(a.URL, path.Child("url"))...)
	errs = append(errs, atLeast(1, a.Size, path.Child("size"))...)
	if !digest().MatchString(a.SHA256) {
		errs = append(errs, field.Invalid(path.Child("sha256"), a.SHA256, notDigest))
	}
	if a.Chunks != nil {
		errs = append(errs, checkChunks(a.Chunks, path.Child("chunks"))...)
	}
	return errs
}

const notDigest = "must be 64 lower-case hexadecimal digits"

func checkChunks(c *firmwarev1.Chunks, path *field.Path) field.ErrorList {
	errs := checkURL(c.URL, path.Child("url"))
	if most := min(c.Size, firmwarev1.MaxIndex); c.IndexSize < 1 || c.IndexSize > most {
		errs = append(errs, field.Invalid(path.Child("indexSize"), c.IndexSize, "must be at least 1, and no more than size and 64 MiB"))
	}
	if !digest().MatchString(c.IndexSHA256) {
		errs = append(errs, field.Invalid(path.Child("indexSHA256"), c.IndexSHA256, notDigest))
	}
	return errs
}
