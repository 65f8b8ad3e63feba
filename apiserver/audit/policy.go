package audit

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// Level is how much of a request is recorded.
type Level string

// The levels: nothing; who, when, what and how it ended; also what was sent; also what was answered.
const (
	LevelNone            Level = "None"
	LevelMetadata        Level = "Metadata"
	LevelRequest         Level = "Request"
	LevelRequestResponse Level = "RequestResponse"
)

// maxPolicy bounds the size of a policy file, in bytes.
const maxPolicy = 1 << 20

// Policy says how much is recorded of which requests: a file in the form of audit.k8s.io/v1, kind Policy. The first rule that matches
// counts; of a request that none matches nothing is recorded.
type Policy struct {
	APIVersion        string         `json:"apiVersion"`
	Kind              string         `json:"kind"`
	Metadata          map[string]any `json:"metadata,omitempty"`
	Rules             []Rule         `json:"rules"`
	OmitStages        []string       `json:"omitStages,omitempty"`
	OmitManagedFields bool           `json:"omitManagedFields,omitempty"`
}

// Rule is one rule. What it leaves empty matches all.
type Rule struct {
	Level             Level       `json:"level"`
	Users             []string    `json:"users,omitempty"`
	UserGroups        []string    `json:"userGroups,omitempty"`
	Verbs             []string    `json:"verbs,omitempty"`
	Resources         []Resources `json:"resources,omitempty"`
	Namespaces        []string    `json:"namespaces,omitempty"` // the empty name is that of what has no namespace
	NonResourceURLs   []string    `json:"nonResourceURLs,omitempty"`
	OmitStages        []string    `json:"omitStages,omitempty"`
	OmitManagedFields *bool       `json:"omitManagedFields,omitempty"`
}

// Resources are resources of one group: "pods", "pods/log", "pods/*", "*/scale", "*". An empty list is all of them.
type Resources struct {
	Group         string   `json:"group,omitempty"`
	Resources     []string `json:"resources,omitempty"`
	ResourceNames []string `json:"resourceNames,omitempty"`
}

// Request is what rules look at.
type Request struct {
	User   string
	Groups []string
	Verb   string
	// Object is what a request for a resource is about; nil: Path counts.
	Object *Object
	Path   string
}

// Decision is how one request is recorded.
type Decision struct {
	Level             Level
	OmitStages        []string
	OmitManagedFields bool
}

// LoadPolicy reads a policy file. Unknown keys, levels and stages are mistakes.
func LoadPolicy(path string) (*Policy, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxPolicy {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxPolicy)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p, err := ParsePolicy(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// ParsePolicy reads a policy in YAML or JSON.
func ParsePolicy(data []byte) (*Policy, error) {
	var p Policy
	if err := yaml.UnmarshalStrict(data, &p); err != nil {
		return nil, err
	}
	if p.APIVersion != "audit.k8s.io/v1" || p.Kind != "Policy" {
		return nil, fmt.Errorf("it is %s %s, and should be audit.k8s.io/v1 Policy", p.APIVersion, p.Kind)
	}
	if len(p.Rules) == 0 {
		return nil, fmt.Errorf("rules: there are none, so nothing would be recorded")
	}
	if err := checkStages(p.OmitStages); err != nil {
		return nil, err
	}
	for i := range p.Rules {
		if err := p.Rules[i].check(); err != nil {
			return nil, fmt.Errorf("rules[%d]: %w", i, err)
		}
	}
	return &p, nil
}

func checkStages(stages []string) error {
	for _, s := range stages {
		if !slices.Contains([]string{"RequestReceived", StageStarted, StageComplete, StagePanic}, s) {
			return fmt.Errorf("omitStages: %q is no stage: RequestReceived, %s, %s, %s", s, StageStarted, StageComplete, StagePanic)
		}
	}
	return nil
}

func (r *Rule) check() error {
	if !slices.Contains([]Level{LevelNone, LevelMetadata, LevelRequest, LevelRequestResponse}, r.Level) {
		return fmt.Errorf("level: %q is none: None, Metadata, Request, RequestResponse", r.Level)
	}
	for _, url := range r.NonResourceURLs {
		if url != "*" && !strings.HasPrefix(url, "/") {
			return fmt.Errorf("nonResourceURLs: %q must begin with a '/' character", url)
		}
		if strings.Contains(strings.TrimSuffix(url, "*"), "*") {
			return fmt.Errorf("nonResourceURLs: in %q '*' must be the final character", url)
		}
	}
	if len(r.NonResourceURLs) > 0 && len(r.Resources)+len(r.Namespaces) > 0 {
		return fmt.Errorf("a rule cannot apply to both resources and nonResourceURLs")
	}
	for _, res := range r.Resources {
		if len(res.ResourceNames) > 0 && len(res.Resources) == 0 {
			return fmt.Errorf("resourceNames requires at least one resource")
		}
	}
	return checkStages(r.OmitStages)
}

// Decide finds how a request is recorded. A nil Policy records the metadata of all.
func (p *Policy) Decide(r *Request) Decision {
	if p == nil {
		return Decision{Level: LevelMetadata}
	}
	for i := range p.Rules {
		rule := &p.Rules[i]
		if !rule.matches(r) {
			continue
		}
		d := Decision{Level: rule.Level, OmitStages: slices.Concat(p.OmitStages, rule.OmitStages), OmitManagedFields: p.OmitManagedFields}
		if rule.OmitManagedFields != nil {
			d.OmitManagedFields = *rule.OmitManagedFields
		}
		return d
	}
	return Decision{Level: LevelNone}
}

func (r *Rule) matches(q *Request) bool {
	switch {
	case len(r.Users) > 0 && !slices.Contains(r.Users, q.User):
		return false
	case len(r.UserGroups) > 0 && !slices.ContainsFunc(q.Groups, func(g string) bool { return slices.Contains(r.UserGroups, g) }):
		return false
	case len(r.Verbs) > 0 && !slices.Contains(r.Verbs, q.Verb):
		return false
	case len(r.Namespaces)+len(r.Resources) > 0:
		return q.Object != nil && r.matchesObject(q.Object)
	case len(r.NonResourceURLs) > 0:
		return q.Object == nil && slices.ContainsFunc(r.NonResourceURLs, func(url string) bool {
			prefix, all := strings.CutSuffix(url, "*")
			return url == q.Path || all && strings.HasPrefix(q.Path, prefix)
		})
	}
	return true
}

func (r *Rule) matchesObject(o *Object) bool {
	if len(r.Namespaces) > 0 && !slices.Contains(r.Namespaces, o.Namespace) {
		return false
	}
	return len(r.Resources) == 0 || slices.ContainsFunc(r.Resources, func(res Resources) bool {
		if res.Group != o.APIGroup && res.Group != "*" {
			return false
		}
		return len(res.Resources) == 0 || (len(res.ResourceNames) == 0 || slices.Contains(res.ResourceNames, o.Name)) &&
			slices.ContainsFunc(res.Resources, func(name string) bool { return names(name, o) })
	})
}

// names reports whether a name in a policy means a resource, or a subresource.
func names(name string, o *Object) bool {
	full := o.Resource
	if o.Subresource != "" {
		full += "/" + o.Subresource
	}
	of, sub, _ := strings.Cut(name, "/")
	return name == "*" || name == full || of == "*" && o.Subresource != "" && sub == o.Subresource || sub == "*" && of == o.Resource
}
