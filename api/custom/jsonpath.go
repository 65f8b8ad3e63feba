package custom

import (
	"cmp"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// path is a JSONPath as printer columns have it: fields, indexes, slices, wildcards, recursive descent and filters that compare a
// field with a literal. Kubernetes' own implementation would bring text/template into the binary.
type path []step

// step goes from one value to those that it selects.
type step func(value any) []any

var errPath = errors.New("custom: not a JSONPath that is understood")

// find returns everything that the path selects.
func (p path) find(value any) []any {
	found := []any{value}
	for _, s := range p {
		var next []any
		for _, v := range found {
			next = append(next, s(v)...)
		}
		found = next
	}
	return found
}

func parsePath(text string) (path, error) {
	var p path
	for text != "" {
		switch {
		case strings.HasPrefix(text, ".."):
			p, text = append(p, descend), text[1:]
		case text[0] == '.':
			end := strings.IndexAny(text[1:], ".[")
			if end < 0 {
				end = len(text) - 1
			}
			if name := strings.ReplaceAll(text[1:1+end], `\.`, "."); name == "*" {
				p = append(p, each)
			} else if name != "" {
				for strings.HasSuffix(name, `\`) { // the dot was part of the name
					rest := text[1+end:]
					more := strings.IndexAny(rest[1:], ".[")
					if more < 0 {
						more = len(rest) - 1
					}
					name, end = name[:len(name)-1]+rest[:1+more], end+1+more
				}
				p = append(p, member(name))
			}
			text = text[1+end:]
		case text[0] == '[':
			end := closing(text)
			if end < 0 {
				return nil, errPath
			}
			s, err := parseBracket(strings.TrimSpace(text[1:end]))
			if err != nil {
				return nil, err
			}
			p, text = append(p, s), text[end+1:]
		default:
			return nil, errPath
		}
	}
	return p, nil
}

// closing is where the bracket at the beginning of text ends, brackets and quotes inside left out.
func closing(text string) int {
	depth, quote := 0, byte(0)
	for i := range len(text) {
		switch c := text[i]; {
		case quote != 0:
			if c == quote && text[i-1] != '\\' {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == '[':
			depth++
		case c == ']':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

func parseBracket(inside string) (step, error) {
	switch {
	case inside == "":
		return nil, errPath
	case inside == "*":
		return each, nil
	case strings.HasPrefix(inside, "?(") && strings.HasSuffix(inside, ")"):
		return parseFilter(inside[2 : len(inside)-1])
	case inside[0] == '\'' || inside[0] == '"':
		name, ok := literal(inside).(string)
		if !ok {
			return nil, errPath
		}
		return member(name), nil
	}
	from, to, isSlice := strings.Cut(inside, ":")
	first, err := strconv.Atoi(cmp.Or(from, "0"))
	if err != nil {
		return nil, errPath
	}
	if !isSlice {
		return part(first, 1), nil
	}
	if to == "" {
		return part(first, -1), nil
	}
	last, err := strconv.Atoi(to)
	if err != nil || last < first || last < 0 != (first < 0) {
		return nil, errPath
	}
	return part(first, last-first), nil
}

// literal reads a quoted text, a number or a boolean; nil is none of those.
func literal(text string) any {
	if len(text) >= 2 && (text[0] == '\'' || text[0] == '"') && text[len(text)-1] == text[0] {
		return strings.NewReplacer(`\'`, `'`, `\"`, `"`, `\.`, `.`).Replace(text[1 : len(text)-1])
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n
	}
	if n, err := strconv.ParseFloat(text, 64); err == nil {
		return n
	}
	if b, err := strconv.ParseBool(text); err == nil {
		return b
	}
	return nil
}

func parseFilter(text string) (step, error) {
	left, operator, right := strings.TrimSpace(text), "", ""
	for _, op := range []string{"==", "!=", "<=", ">=", "<", ">"} {
		if before, after, found := strings.Cut(text, op); found {
			left, operator, right = strings.TrimSpace(before), op, strings.TrimSpace(after)
			break
		}
	}
	field, ok := strings.CutPrefix(left, "@")
	if !ok {
		return nil, errPath
	}
	at, err := parsePath(field)
	if err != nil {
		return nil, err
	}
	want := literal(right)
	if operator != "" && want == nil {
		return nil, errPath
	}
	return func(value any) []any {
		return slices.DeleteFunc(slices.Clone(each(value)), func(v any) bool {
			found := at.find(v)
			return len(found) == 0 || operator != "" && !compares(found[0], operator, want)
		})
	}, nil
}

func compares(have any, operator string, want any) bool {
	if n, ok := have.(int64); ok {
		if f, isFloat := want.(float64); isFloat {
			return holds(operator, cmp.Compare(float64(n), f))
		}
	}
	if f, ok := have.(float64); ok {
		if n, isInt := want.(int64); isInt {
			return holds(operator, cmp.Compare(f, float64(n)))
		}
	}
	switch want := want.(type) {
	case string:
		if text, ok := have.(string); ok {
			return holds(operator, cmp.Compare(text, want))
		}
	case int64:
		if n, ok := have.(int64); ok {
			return holds(operator, cmp.Compare(n, want))
		}
	case float64:
		if n, ok := have.(float64); ok {
			return holds(operator, cmp.Compare(n, want))
		}
	}
	return reflect.DeepEqual(have, want) == (operator == "==")
}

func holds(operator string, order int) bool {
	switch operator {
	case "==":
		return order == 0
	case "!=":
		return order != 0
	case "<":
		return order < 0
	case "<=":
		return order <= 0
	case ">":
		return order > 0
	}
	return order >= 0
}

func member(name string) step {
	return func(value any) []any {
		if object, ok := value.(map[string]any); ok {
			if v, found := object[name]; found {
				return []any{v}
			}
		}
		return nil
	}
}

// part selects some members of a list; a negative first counts from its end, and a negative number takes all that follow.
func part(first, number int) step {
	return func(value any) []any {
		list, _ := value.([]any)
		from := first
		if from < 0 {
			from += len(list)
		}
		if from < 0 || from >= len(list) {
			return nil
		}
		if number < 0 {
			return list[from:]
		}
		return list[from:min(from+number, len(list))]
	}
}

// each selects all members or fields.
func each(value any) []any {
	switch value := value.(type) {
	case []any:
		return value
	case map[string]any:
		var all []any
		for _, name := range slices.Sorted(maps.Keys(value)) {
			all = append(all, value[name])
		}
		return all
	}
	return nil
}

// descend selects a value and everything in it.
func descend(value any) []any {
	all := []any{value}
	for _, inner := range each(value) {
		all = append(all, descend(inner)...)
	}
	return all
}
