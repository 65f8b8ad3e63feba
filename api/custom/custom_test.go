package custom_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/custom"
)

// crontabs defines a kind with the given columns, as it is stored.
func crontabs(t testing.TB, columns ...string) *api.Kind {
	t.Helper()
	keep := true
	version := apiextensionsv1.CustomResourceDefinitionVersion{
		Name: "v1", Served: true, Storage: true,
		Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
			Type: "object", XPreserveUnknownFields: &keep,
		}},
	}
	for _, path := range columns {
		version.AdditionalPrinterColumns = append(version.AdditionalPrinterColumns,
			apiextensionsv1.CustomResourceColumnDefinition{Name: path, Type: "string", JSONPath: path})
	}
	d := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "crontabs.example.com"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "example.com", Versions: []apiextensionsv1.CustomResourceDefinitionVersion{version},
		},
		Status: apiextensionsv1.CustomResourceDefinitionStatus{
			AcceptedNames: apiextensionsv1.CustomResourceDefinitionNames{Plural: "crontabs", Kind: "CronTab", ListKind: "CronTabList"},
			Conditions: []apiextensionsv1.CustomResourceDefinitionCondition{{
				Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionTrue,
			}},
		},
	}
	value, err := d.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	made, err := custom.New(value, nil)
	if err != nil {
		t.Fatal(err)
	}
	return made.Storage.Kind
}

const crontab = `{"apiVersion":"example.com/v1","kind":"CronTab","metadata":{"name":"c","uid":"u","labels":{"a":"b"}},` +
	`"spec":{"list":[{"name":"a","n":1},{"name":"b","n":2.5}],"on":true,"dotted.key":"d","deep":{"x":{"y":"z"}}},"status":{"n":9007199254740993}}`

func decoded(t testing.TB, kind *api.Kind, text string) *custom.Object {
	t.Helper()
	o, _, err := custom.Decoder{Strict: true}.Decode([]byte(text), nil, kind.New())
	if err != nil {
		t.Fatal(err)
	}
	return o.(*custom.Object)
}

func TestObjectsKeepWhatTheyAre(t *testing.T) {
	kind := crontabs(t)
	value, err := api.Encode(decoded(t, kind, crontab))
	if err != nil {
		t.Fatal(err)
	}
	var meta metav1.PartialObjectMetadata
	if err := meta.Unmarshal(value); err != nil || meta.Name != "c" || meta.Labels["a"] != "b" {
		t.Errorf("the metadata of %q is read as that of any object: %v, %v", value, meta, err)
	}
	o, err := api.Decode(kind, value, 7)
	if err != nil {
		t.Fatal(err)
	}
	unread, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	o.(*custom.Object).SetContent(o.(*custom.Object).Content())
	read, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range [][]byte{unread, read} {
		again := decoded(t, kind, string(got))
		if again.ResourceVersion != "7" {
			t.Errorf("revision %q", again.ResourceVersion)
		}
		if diff := cmp.Diff(decoded(t, kind, crontab).Content(), again.Content()); diff != "" {
			t.Error(diff)
		}
	}
}

func TestColumns(t *testing.T) {
	cases := []struct {
		path string
		want any
	}{
		{".spec.on", "true"},
		{".spec.list[0].name", "a"},
		{".spec.list[-1].name", "b"},
		{".spec.list[*].name", "a"},
		{".spec.list[1:].name", "b"},
		{".spec.list[0:1].n", "1"},
		{`.spec.list[?(@.name=="b")].n`, "2.5"},
		{`.spec.list[?(@.n>1)].name`, "b"},
		{`.spec.list[?(@.name!='a')].name`, "b"},
		{`.spec.list[?(@.none)].name`, nil},
		{`.spec['dotted.key']`, "d"},
		{`.spec.dotted\.key`, "d"},
		{"..y", "z"},
		{".spec.deep", `{"x":{"y":"z"}}`},
		{".status.n", "9007199254740993"},
		{".metadata.name", "c"},
		{".spec.none", nil},
		{".spec.list[7]", nil},
		{".spec.list[", nil},
		{".spec.list[?(name)]", nil},
	}
	var paths []string
	for _, c := range cases {
		paths = append(paths, c.path)
	}
	kind := crontabs(t, paths...)
	row := kind.Row(decoded(t, kind, crontab), time.Now())
	for i, c := range cases {
		if got := row[i+1]; got != c.want {
			t.Errorf("%s: %v, want %v", c.path, got, c.want)
		}
	}
}

func FuzzObject(f *testing.F) {
	kind := crontabs(f)
	value, err := api.Encode(decoded(f, kind, crontab))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(value)
	f.Add([]byte("\x12\x02{}"))
	f.Add([]byte("\x12\x0a{\"a\":1e999}"))
	f.Fuzz(func(t *testing.T, value []byte) {
		o, err := api.Decode(kind, value, 1)
		if err != nil {
			return
		}
		data, err := json.Marshal(o)
		if err != nil {
			t.Fatalf("what was stored cannot be shown: %v", err)
		}
		if !json.Valid(data) {
			t.Fatalf("not JSON: %s", data)
		}
		_, _ = api.Encode(o) // it must not panic; what was not written by us need not fit
	})
}

func FuzzDecoder(f *testing.F) {
	kind := crontabs(f, ".spec.list[0].name")
	f.Add([]byte(crontab), false)
	f.Add([]byte("apiVersion: example.com/v1\nkind: CronTab\nmetadata: {name: c}\nspec: &a {b: [1, {c: null}]}\n"), true)
	f.Fuzz(func(t *testing.T, data []byte, yaml bool) {
		o := kind.New()
		if obj, _, err := (custom.Decoder{YAML: yaml, Strict: true}).Decode(data, nil, o); err != nil && obj == nil {
			return
		}
		kind.Default(o)
		kind.PrepareCreate(o)
		kind.Validate(o)
		kind.Row(o, time.Unix(0, 0))
		value, err := api.Encode(o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := api.Decode(kind, value, 1); err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
	})
}

func FuzzColumns(f *testing.F) {
	f.Add(`.spec.list[?(@.name=="b")].n`)
	f.Add(`..[*]['a\'b'][-1:]`)
	f.Fuzz(func(t *testing.T, path string) {
		kind := crontabs(t, path)
		kind.Row(decoded(t, kind, crontab), time.Unix(0, 0))
	})
}

// BenchmarkObject is what a list costs for one object: unread, and with a look into it.
func BenchmarkObject(b *testing.B) {
	kind := crontabs(b)
	value, err := api.Encode(decoded(b, kind, crontab))
	if err != nil {
		b.Fatal(err)
	}
	for _, look := range []bool{false, true} {
		b.Run(map[bool]string{false: "unread", true: "read"}[look], func(b *testing.B) {
			b.ReportAllocs()
			b.ReportMetric(float64(len(value)), "bytes/object")
			for b.Loop() {
				o, err := api.Decode(kind, value, 1)
				if err != nil {
					b.Fatal(err)
				}
				if look {
					o.(*custom.Object).Content()
				}
				if _, err := json.Marshal(o); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
