package tagged

import "reflect"

// Copy returns a copy of what in points to that shares no memory with it. Nil stays nil.
func Copy[T any](in *T) *T {
	if in == nil {
		return nil
	}
	out := new(T)
	*out = *in
	detach(reflect.ValueOf(out).Elem())
	return out
}

// detach replaces what v shares with what it was copied from. Fields that nobody outside can set, such as those of time.Time, are
// values that never change.
func detach(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Field(i); f.CanSet() {
				detach(f)
			}
		}
	case reflect.Pointer:
		if !v.IsNil() {
			made := reflect.New(v.Type().Elem())
			made.Elem().Set(v.Elem())
			detach(made.Elem())
			v.Set(made)
		}
	case reflect.Slice:
		if !v.IsNil() {
			made := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
			reflect.Copy(made, v)
			for i := range made.Len() {
				detach(made.Index(i))
			}
			v.Set(made)
		}
	case reflect.Map:
		if !v.IsNil() {
			made := reflect.MakeMapWithSize(v.Type(), v.Len())
			for _, k := range v.MapKeys() {
				value := reflect.New(v.Type().Elem()).Elem()
				value.Set(v.MapIndex(k))
				detach(value)
				made.SetMapIndex(k, value)
			}
			v.Set(made)
		}
	}
}
