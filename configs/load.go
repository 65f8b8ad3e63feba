package configs

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFile bounds the configuration file, in bytes.
const maxFile = 1 << 20

// Load reads the file at path, strictly, fills in the defaults and validates the result. An empty path means defaults only.
func Load(path string) (Config, error) {
	if path == "" {
		return Parse("", nil)
	}
	f, err := os.Open(path)
	if err != nil {
		return Config{}, fmt.Errorf("config: %w", err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return Config{}, fmt.Errorf("config: read %s: %w", path, err)
	}
	if len(data) > maxFile {
		return Config{}, fmt.Errorf("config: %s is larger than %d bytes", path, maxFile)
	}
	return Parse(path, data)
}

// Parse is Load on bytes; name is used in messages.
func Parse(name string, data []byte) (Config, error) {
	var c Config
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return Config{}, explain(name, err)
	}
	if err := decoder.Decode(new(yaml.Node)); err == nil {
		return Config{}, fmt.Errorf("config: %s: holds more than one YAML document; keep one", name)
	}
	complete, err := Complete(c)
	if err != nil && name != "" {
		return Config{}, fmt.Errorf("config: %s: %s", name, strings.TrimPrefix(err.Error(), "config: "))
	}
	return complete, err
}

// Complete fills in the defaults of a configuration that was made in code, and validates it.
func Complete(c Config) (Config, error) {
	if err := c.setDefaults(); err != nil {
		return Config{}, fmt.Errorf("config: %w", err)
	}
	if err := c.validate(); err != nil {
		return Config{}, fmt.Errorf("config: %w", err)
	}
	return c, nil
}

var (
	unknownField = regexp.MustCompile(`^line (\d+): field (\S+) not found in type (?:\w+\.)?(\w+)$`)
	wrongType    = regexp.MustCompile("^line (\\d+): cannot unmarshal !!\\w+ ?(`.*`)? into (\\S+)$")
	otherError   = regexp.MustCompile(`^line (\d+): (.*)$`)
)

// explain turns the decoder's first complaint into one line of the form file:line: what: what to do.
func explain(name string, err error) error {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	var typed *yaml.TypeError
	if errors.As(err, &typed) && len(typed.Errors) > 0 {
		message = typed.Errors[0]
	}
	if m := unknownField.FindStringSubmatch(message); m != nil {
		known := keysOf(m[3])
		if near := nearest(m[2], known); near != "" {
			return fmt.Errorf("config: %s:%s: unknown key %q; did you mean %q?", name, m[1], m[2], near)
		}
		return fmt.Errorf("config: %s:%s: unknown key %q; known here: %s", name, m[1], m[2], strings.Join(known, ", "))
	}
	if m := wrongType.FindStringSubmatch(message); m != nil {
		return fmt.Errorf("config: %s:%s: %s is not %s", name, m[1], cmp.Or(strings.ReplaceAll(m[2], "`", `"`), "what is here"), wanted(m[3]))
	}
	if m := otherError.FindStringSubmatch(message); m != nil {
		return fmt.Errorf("config: %s:%s: %s", name, m[1], m[2])
	}
	return fmt.Errorf("config: %s: this is not YAML: %s", name, message)
}

// wanted says in words what a value of a Go type looks like in the file.
func wanted(goType string) string {
	switch {
	case goType == "time.Duration":
		return "a duration, such as 500ms, 10s or 2m"
	case goType == "bool":
		return "true or false"
	case strings.HasPrefix(goType, "int"), strings.HasPrefix(goType, "uint"):
		return "a whole number"
	case strings.HasPrefix(goType, "[]"):
		return "a list"
	case goType == "string":
		return "a text"
	}
	return "a set of keys"
}

// keysOf lists the YAML keys of the schema's struct with the given type name.
func keysOf(typeName string) []string {
	rt := typeNamed(reflect.TypeFor[Config](), typeName)
	if rt == nil {
		return nil
	}
	keys := make([]string, 0, rt.NumField())
	for i := range rt.NumField() {
		if key, _, _ := strings.Cut(rt.Field(i).Tag.Get("yaml"), ","); key != "-" && key != "" {
			keys = append(keys, key)
		}
	}
	return keys
}

// typeNamed finds a struct by its name among the types that t is made of.
func typeNamed(t reflect.Type, name string) reflect.Type {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return typeNamed(t.Elem(), name)
	case reflect.Struct:
		if t.Name() == name {
			return t
		}
		for i := range t.NumField() {
			if found := typeNamed(t.Field(i).Type, name); found != nil {
				return found
			}
		}
	}
	return nil
}

// nearest is the known key at the smallest edit distance, if that is at most a third of the word (one letter at least).
func nearest(word string, known []string) string {
	best, limit := "", max(1, (len(word)+1)/3)
	for _, k := range known {
		if d := distance(strings.ToLower(word), strings.ToLower(k)); d <= limit {
			best, limit = k, d-1
		}
	}
	return best
}

// distance is the Levenshtein distance of two words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		previous := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := previous
			if a[i] != b[j] {
				cost++
			}
			previous = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
