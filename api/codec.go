package api

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// firstField begins the bytes of every object: its metadata, as Encode writes them.
const firstField = 1<<3 | 2

var errNotPlain = errors.New("the bytes are not those of a plain object")

// Decode makes an object of the stored Protobuf bytes and gives it the revision that they were stored at.
// The object is the caller's own; its TypeMeta is empty, as Go clients expect.
func Decode(k *Kind, value []byte, revision uint64) (Object, error) {
	if k.Sensitive && (len(value) == 0 || value[0] != firstField) {
		return nil, fmt.Errorf("api: decode %s: %w", k.GVK.Kind, errNotPlain) // encrypted ones would decode as empty ones
	}
	obj := k.New()
	if err := obj.Unmarshal(value); err != nil {
		return nil, fmt.Errorf("api: decode %s: %w", k.GVK.Kind, err)
	}
	if k.Restore != nil {
		k.Restore(obj)
	}
	if revision != 0 {
		obj.SetResourceVersion(strconv.FormatUint(revision, 10))
	}
	return obj, nil
}

// Encode makes the bytes that the store keeps. The resourceVersion is left out: it is the revision that the bytes get
// when they commit, which nobody knows yet.
func Encode(obj Object) ([]byte, error) {
	plain := shallowCopy(obj)
	plain.SetResourceVersion("")
	plain.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	value, err := plain.Marshal()
	if err != nil {
		return nil, fmt.Errorf("api: encode %T: %w", obj, err)
	}
	return value, nil
}

// shallowCopy copies the struct itself, metadata included, and shares what it points to.
func shallowCopy(obj Object) Object {
	from := reflect.ValueOf(obj).Elem()
	to := reflect.New(from.Type())
	to.Elem().Set(from)
	return to.Interface().(Object)
}
