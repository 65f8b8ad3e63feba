package apiserver

import (
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// FuzzPlainFields: what is called plain is JSON, and compact.
func FuzzPlainFields(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"f:a":{}}`, `{"f:a":{".":{},"k:{\"type\":\"Ready\"}":{"f:b":{}}},"f:c":{}}`, `{"a":{}`, `{"a":{}}}`, `{"a":{},}`, `{,"a":{}}`, `{"a":1}`,
		`{"a" :{}}`, ``, `null`, `{"a":{}{}}`, `{"\u0041":{}}`, "{\"\n\":{}}", `{"a":{}}{}`, `{"a":}`, `{"a"`, `{"a\`, `}`, `{}{}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if !plainFields(raw) {
			return
		}
		compact, err := json.Marshal(json.RawMessage(raw))
		if err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		unescape := strings.NewReplacer("\\u003c", "<", "\\u003e", ">", "\\u0026", "&", "\\u2028", "\u2028", "\\u2029", "\u2029")
		if unescape.Replace(string(compact)) != string(raw) {
			t.Fatalf("%q is not compact: %q", raw, compact)
		}
	})
}

// TestPlainFields: everything that is made of objects only is plain.
func TestPlainFields(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var fields func(depth int) map[string]any
		fields = func(depth int) map[string]any {
			all := map[string]any{}
			for range rapid.IntRange(0, 3).Draw(t, "fields") * depth {
				all[rapid.StringMatching(`[fkv]:[a-z{}",:.\\]{0,8}`).Draw(t, "key")] = fields(depth - 1)
			}
			return all
		}
		raw, err := json.Marshal(fields(2))
		if err != nil {
			t.Fatal(err)
		}
		if !plainFields(raw) {
			t.Fatalf("%s is not plain", raw)
		}
	})
}
