// Package tagged owns the Protobuf form and the copies of shoal's own kinds. Upstream's types have generated code for both; ours
// are few and small, so they say their field numbers in upstream's own tags (`protobuf:"bytes,1,opt,name=metadata"`) and these
// functions follow them. The form is plain Protobuf (https://protobuf.dev/programming-guides/encoding/): unknown fields are
// skipped, absent ones keep their zero value, and any Protobuf library reads it.
package tagged

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
)

// message is a type that has its own Protobuf form, such as upstream's ObjectMeta, Time and LabelSelector.
type message interface {
	Marshal() ([]byte, error)
	Unmarshal(data []byte) error
}

// maxDepth bounds how deep messages may be nested.
const maxDepth = 16

var errMalformed = errors.New("the bytes are no Protobuf message of this type")

// Marshal makes the bytes of what v, a pointer to a struct, points to. Equal values make equal bytes.
func Marshal(v any) ([]byte, error) {
	return appendStruct(nil, reflect.ValueOf(v).Elem())
}

// fields are the places of a struct's fields, by number.
type fields struct {
	numbers []protowire.Number // in the struct's order, 0 for what is no part of the message
	index   map[protowire.Number]int
}

// known are the fields of the types that were seen: reading tags takes longer than reading a message.
var known sync.Map //nolint:gochecknoglobals // of reflect.Type to *fields; what is in it never changes

func fieldsOf(t reflect.Type) *fields {
	if f, ok := known.Load(t); ok {
		return f.(*fields)
	}
	f := &fields{numbers: make([]protowire.Number, t.NumField()), index: map[protowire.Number]int{}}
	for i := range t.NumField() {
		if n := number(t.Field(i)); n != 0 {
			f.numbers[i], f.index[n] = n, i
		}
	}
	known.Store(t, f)
	return f
}

// number is a field's number, or 0 for one that is not part of the message.
func number(f reflect.StructField) protowire.Number {
	_, rest, _ := strings.Cut(f.Tag.Get("protobuf"), ",")
	text, _, _ := strings.Cut(rest, ",")
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return 0
	}
	return protowire.Number(n)
}

func appendStruct(b []byte, v reflect.Value) ([]byte, error) {
	var err error
	for i, n := range fieldsOf(v.Type()).numbers {
		if n != 0 {
			if b, err = appendField(b, n, v.Field(i)); err != nil {
				return nil, fmt.Errorf("%s: %w", v.Type().Field(i).Name, err)
			}
		}
	}
	return b, nil
}

// appendField appends a field unless it is absent.
func appendField(b []byte, n protowire.Number, v reflect.Value) ([]byte, error) {
	switch {
	case own(v) != nil:
		return appendValue(b, n, v)
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() != reflect.Uint8:
		var err error
		for i := range v.Len() {
			if b, err = appendValue(b, n, v.Index(i)); err != nil {
				return nil, err
			}
		}
		return b, nil
	case v.Kind() == reflect.Map:
		return appendMap(b, n, v)
	case v.Kind() == reflect.Pointer:
		if v.IsNil() {
			return b, nil
		}
		return appendValue(b, n, v.Elem())
	case v.Kind() != reflect.Struct && v.IsZero():
		return b, nil
	}
	return appendValue(b, n, v)
}

// own is the value as a type with its own form, or nil.
func own(v reflect.Value) message {
	if v.Kind() != reflect.Struct || !v.CanAddr() {
		return nil
	}
	m, _ := v.Addr().Interface().(message)
	return m
}

// appendValue appends a value that is there, zero or not.
func appendValue(b []byte, n protowire.Number, v reflect.Value) ([]byte, error) {
	if m := own(v); m != nil {
		data, err := m.Marshal()
		if err != nil {
			return nil, err
		}
		return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), data), nil
	}
	switch v.Kind() {
	case reflect.Struct:
		data, err := appendStruct(nil, v)
		if err != nil {
			return nil, err
		}
		return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), data), nil
	case reflect.String:
		return protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), v.String()), nil
	case reflect.Slice:
		return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), v.Bytes()), nil
	case reflect.Bool:
		return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), protowire.EncodeBool(v.Bool())), nil
	case reflect.Int, reflect.Int32, reflect.Int64:
		return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), uint64(v.Int())), nil
	}
	return nil, fmt.Errorf("%s has no Protobuf form here", v.Type())
}

// appendMap appends the entries in the order of their keys, each a message of a key and a value.
func appendMap(b []byte, n protowire.Number, v reflect.Value) ([]byte, error) {
	keys := v.MapKeys()
	slices.SortFunc(keys, func(x, y reflect.Value) int { return cmp.Compare(x.String(), y.String()) })
	for _, k := range keys {
		value := reflect.New(v.Type().Elem()).Elem()
		value.Set(v.MapIndex(k))
		entry, err := appendValue(nil, 1, k)
		if err == nil {
			entry, err = appendValue(entry, 2, value)
		}
		if err != nil {
			return nil, err
		}
		b = protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), entry)
	}
	return b, nil
}

// Unmarshal reads data into what v, a pointer to a struct, points to, after clearing it.
func Unmarshal(data []byte, v any) error {
	target := reflect.ValueOf(v).Elem()
	target.SetZero()
	if err := readStruct(data, target, 0); err != nil {
		return fmt.Errorf("%s: %w", target.Type().Name(), err)
	}
	return nil
}

func readStruct(data []byte, v reflect.Value, depth int) error {
	if depth > maxDepth {
		return errMalformed
	}
	places := fieldsOf(v.Type()).index
	for len(data) > 0 {
		n, wire, size := protowire.ConsumeTag(data)
		if size < 0 {
			return errMalformed
		}
		data = data[size:]
		size = protowire.ConsumeFieldValue(n, wire, data)
		if size < 0 {
			return errMalformed
		}
		if i, ok := places[n]; ok {
			if err := readField(data[:size], wire, v.Field(i), depth); err != nil {
				return err
			}
		}
		data = data[size:]
	}
	return nil
}

func readField(data []byte, wire protowire.Type, v reflect.Value, depth int) error {
	switch {
	case own(v) != nil:
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() != reflect.Uint8:
		item := reflect.New(v.Type().Elem()).Elem()
		if err := readValue(data, wire, item, depth); err != nil {
			return err
		}
		v.Set(reflect.Append(v, item))
		return nil
	case v.Kind() == reflect.Map:
		return readEntry(data, wire, v, depth)
	case v.Kind() == reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		v = v.Elem()
	}
	return readValue(data, wire, v, depth)
}

func readValue(data []byte, wire protowire.Type, v reflect.Value, depth int) error {
	switch v.Kind() {
	case reflect.Bool, reflect.Int, reflect.Int32, reflect.Int64:
		n, size := protowire.ConsumeVarint(data)
		if wire != protowire.VarintType || size < 0 {
			return errMalformed
		}
		if v.Kind() == reflect.Bool {
			v.SetBool(protowire.DecodeBool(n))
		} else {
			v.SetInt(int64(n))
		}
		return nil
	}
	content, size := protowire.ConsumeBytes(data)
	if wire != protowire.BytesType || size < 0 {
		return errMalformed
	}
	if m := own(v); m != nil {
		return m.Unmarshal(content)
	}
	switch v.Kind() {
	case reflect.Struct:
		return readStruct(content, v, depth+1)
	case reflect.String:
		v.SetString(string(content))
	case reflect.Slice:
		v.SetBytes(slices.Clone(content))
	default:
		return fmt.Errorf("%s has no Protobuf form here", v.Type())
	}
	return nil
}

func readEntry(data []byte, wire protowire.Type, v reflect.Value, depth int) error {
	content, size := protowire.ConsumeBytes(data)
	if wire != protowire.BytesType || size < 0 {
		return errMalformed
	}
	key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
	for len(content) > 0 {
		n, kind, size := protowire.ConsumeTag(content)
		if size < 0 {
			return errMalformed
		}
		content = content[size:]
		if size = protowire.ConsumeFieldValue(n, kind, content); size < 0 {
			return errMalformed
		}
		into := map[protowire.Number]reflect.Value{1: key, 2: value}[n]
		if into.IsValid() {
			if err := readValue(content[:size], kind, into, depth+1); err != nil {
				return err
			}
		}
		content = content[size:]
	}
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	v.SetMapIndex(key, value)
	return nil
}
