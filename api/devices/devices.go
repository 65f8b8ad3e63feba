// Package devices owns the words in which hardware is told and chosen: the annotation of a node that lists what its device offers,
// and the annotations of a pod that say which of it the pod wants.
package devices

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

const (
	// Annotation of a node lists what its device offers to pods, in JSON (Encode).
	Annotation = "shoal.dev/devices"
	// Domain is that of the resources which are offered by class: shoal.dev/serial.
	Domain = "shoal.dev/"
	// SelectPrefix and the resource's name after Domain are the key of a pod's annotation that chooses devices by their
	// attributes: devices.shoal.dev/serial: "usb-vendor=0403,usb-port=1-1.2".
	SelectPrefix = "devices.shoal.dev/"
	// Machine is the attribute that names what a device leads to, when devices of other nodes lead there too.
	Machine = "machine"
	// MaxAnnotation bounds the annotation of a node, in bytes: it is sent over links that are paid for, and kept by every server.
	MaxAnnotation = 4096
)

// Device is one piece of hardware as the control plane knows it.
type Device struct {
	Resource   string            `json:"resource"`
	Name       string            `json:"name"`
	Attributes map[string]string `json:"attributes,omitempty"`
}

// Encode makes the annotation's value; "" for no devices. A list that is too long loses the attributes that say least first,
// and devices from its end at last; those that lead to a machine are at its begin.
func Encode(list []Device) string {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b Device) int { return cmp.Compare(rank(a), rank(b)) })
	for _, drop := range [][]string{nil, {"of-compatible", "disk-id", "usb-maker", "pci-slot"}, {"usb-model", "driver", "platform", "disk-model"}} {
		shorter := make([]Device, len(list))
		for i, d := range list {
			shorter[i] = d
			shorter[i].Attributes = maps.Clone(d.Attributes)
			maps.DeleteFunc(shorter[i].Attributes, func(key, _ string) bool { return slices.Contains(drop, key) })
		}
		list = shorter
		if text := encode(list); len(text) <= MaxAnnotation {
			return text
		}
	}
	for len(list) > 0 {
		list = list[:len(list)-1]
		if text := encode(list); len(text) <= MaxAnnotation {
			return text
		}
	}
	return ""
}

func rank(d Device) int {
	if d.Attributes[Machine] != "" {
		return 0
	}
	return 1
}

func encode(list []Device) string {
	if len(list) == 0 {
		return ""
	}
	data, err := json.Marshal(list)
	if err != nil {
		return "" // strings and maps of strings always encode
	}
	return string(data)
}

// Decode reads the annotation's value. What is no list is an empty one: a device writes it, and is not believed more than that.
func Decode(text string) []Device {
	if text == "" || len(text) > 2*MaxAnnotation {
		return nil
	}
	var list []Device
	if json.Unmarshal([]byte(text), &list) != nil {
		return nil
	}
	return list
}

// Match says which devices are meant: by attribute, and by the words class, name and path. All have to fit; a value may end
// with "*". The empty Match fits none.
type Match map[string]string

// Fits asks attribute for each of the words of the match.
func (m Match) Fits(attribute func(key string) []string) bool {
	for key, want := range m {
		if !slices.ContainsFunc(attribute(key), func(have string) bool { return fits(have, want) }) {
			return false
		}
	}
	return len(m) > 0
}

// Matches reports whether a device of a node's annotation is meant.
func (m Match) Matches(d Device) bool {
	return m.Fits(func(key string) []string {
		if key == "name" {
			return []string{d.Name}
		}
		return []string{d.Attributes[key]}
	})
}

func fits(have, want string) bool {
	if prefix, ok := strings.CutSuffix(want, "*"); ok {
		return have != "" && strings.HasPrefix(have, prefix)
	}
	return have == want && have != ""
}

// String is the match as Parse reads it.
func (m Match) String() string {
	parts := make([]string, 0, len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, key+"="+m[key])
	}
	return strings.Join(parts, ",")
}

// Parse reads "usb-vendor=0403,usb-port=1-1.2".
func Parse(text string) (Match, error) {
	m := Match{}
	for part := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok || key == "" || value == "" {
			return nil, fmt.Errorf("%q must be attribute=value, separated by commas", text)
		}
		m[key] = value
	}
	return m, nil
}

// Wanted is what a pod with these annotations wants of a resource; nil when any unit will do.
func Wanted(annotations map[string]string, resource string) (Match, error) {
	name, ok := strings.CutPrefix(resource, Domain)
	text := annotations[SelectPrefix+name]
	if !ok || text == "" {
		return nil, nil
	}
	m, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("annotation %s%s: %w", SelectPrefix, name, err)
	}
	return m, nil
}
