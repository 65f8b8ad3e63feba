package api_test

import (
	"encoding/json"
	"math/rand"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/apitesting/fuzzer"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metafuzzer "k8s.io/apimachinery/pkg/apis/meta/fuzzer"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	admission "k8s.io/kubernetes/pkg/apis/admissionregistration/v1"
	apps "k8s.io/kubernetes/pkg/apis/apps/v1"
	autoscalingv1 "k8s.io/kubernetes/pkg/apis/autoscaling/v1"
	autoscalingv2 "k8s.io/kubernetes/pkg/apis/autoscaling/v2"
	batch "k8s.io/kubernetes/pkg/apis/batch/v1"
	certificates "k8s.io/kubernetes/pkg/apis/certificates/v1"
	coordination "k8s.io/kubernetes/pkg/apis/coordination/v1"
	core "k8s.io/kubernetes/pkg/apis/core/v1"
	discovery "k8s.io/kubernetes/pkg/apis/discovery/v1"
	events "k8s.io/kubernetes/pkg/apis/events/v1"
	networking "k8s.io/kubernetes/pkg/apis/networking/v1"
	node "k8s.io/kubernetes/pkg/apis/node/v1"
	policy "k8s.io/kubernetes/pkg/apis/policy/v1"
	rbac "k8s.io/kubernetes/pkg/apis/rbac/v1"
	scheduling "k8s.io/kubernetes/pkg/apis/scheduling/v1"
	storage "k8s.io/kubernetes/pkg/apis/storage/v1"
	"sigs.k8s.io/randfill"

	"github.com/shoal-edge/shoal/api"
)

// rounds is how many random objects each kind is tried with.
const rounds = 30

// upstream is the scheme that upstream itself converts and defaults with.
func upstream(t *testing.T) *runtime.Scheme {
	t.Helper()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		admission.AddToScheme, apiextensions.AddToScheme, apps.AddToScheme, autoscalingv1.AddToScheme, autoscalingv2.AddToScheme, batch.AddToScheme, certificates.AddToScheme,
		coordination.AddToScheme, core.AddToScheme, discovery.AddToScheme, events.AddToScheme, networking.AddToScheme, node.AddToScheme,
		policy.AddToScheme, rbac.AddToScheme, scheduling.AddToScheme, storage.AddToScheme,
	} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// schemas keeps the schemas in definitions small: a schema is made of schemas, a dozen in each, without an end.
func schemas(serializer.CodecFactory) []any {
	return []any{func(s *apiextensions.JSONSchemaProps, c randfill.Continue) {
		*s = apiextensions.JSONSchemaProps{Type: "object", Description: c.String(0), Default: &apiextensions.JSON{Raw: []byte(`{"a":1}`)}}
		for range c.Intn(3) {
			s.Required = append(s.Required, c.String(0))
		}
	}}
}

func filler(seed int64, scheme *runtime.Scheme) *randfill.Filler {
	funcs := fuzzer.MergeFuzzerFuncs(metafuzzer.Funcs, schemas)
	return fuzzer.FuzzerFor(funcs, rand.NewSource(seed), serializer.NewCodecFactory(scheme))
}

// random returns an object with every field at random, as it comes over the wire: empty lists are absent.
func random(t *testing.T, fill *randfill.Filler, k *api.Kind) api.Object {
	t.Helper()
	obj := k.New()
	fill.Fill(obj)
	obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	return viaJSON(t, k, obj)
}

func viaJSON(t *testing.T, k *api.Kind, obj api.Object) api.Object {
	t.Helper()
	data, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	back := k.New()
	if err := json.Unmarshal(data, back); err != nil {
		t.Fatal(err)
	}
	return back
}

// TestWireForms: an object of any kind is the same after a journey through Protobuf and through JSON.
func TestWireForms(t *testing.T) {
	fill := filler(1, upstream(t))
	for _, k := range api.Served() {
		t.Run(k.GVK.String(), func(t *testing.T) {
			for range rounds {
				obj := random(t, fill, k)
				value, err := obj.Marshal()
				if err != nil {
					t.Fatal(err)
				}
				back := k.New()
				if err := back.Unmarshal(value); err != nil {
					t.Fatal(err)
				}
				if back = viaJSON(t, k, back); !apiequality.Semantic.DeepEqual(obj, back) {
					t.Fatal(cmp.Diff(obj, back))
				}
			}
		})
	}
}

// TestDefaultsAreUpstreams: a kind's defaults are those that upstream's scheme fills in.
func TestDefaultsAreUpstreams(t *testing.T) {
	scheme := upstream(t)
	fill := filler(2, scheme)
	for _, k := range api.Served() {
		if strings.HasSuffix(k.GVK.Group, ".shoal.dev") {
			continue // upstream has none of these
		}
		t.Run(k.GVK.String(), func(t *testing.T) {
			for round := range rounds {
				obj := random(t, fill, k)
				if round%2 == 1 {
					thin(reflect.ValueOf(obj).Elem(), rand.New(rand.NewSource(int64(round))))
				}
				switch o := obj.(type) { // what upstream's conversions do is done here with the defaults; they shall have nothing to do
				case *corev1.Secret:
					o.StringData = nil
				case *appsv1.DaemonSet:
					metav1.SetMetaDataAnnotation(&o.ObjectMeta, appsv1.DeprecatedTemplateGeneration, "1")
				}
				want := obj.DeepCopyObject().(api.Object)
				scheme.Default(want)
				if k.Default != nil {
					k.Default(obj)
				}
				if diff := cmp.Diff(want, obj); diff != "" {
					t.Fatal(diff)
				}
			}
		})
	}
}

// TestConversionsAgree: an object of a further version comes back from the stored one as it was.
func TestConversionsAgree(t *testing.T) {
	fill := filler(3, upstream(t))
	for _, k := range api.Served() {
		if k.Stored == nil {
			continue
		}
		t.Run(k.GVK.String(), func(t *testing.T) {
			for range rounds {
				begin := random(t, fill, k.Stored)
				if k.Stored.Default != nil {
					k.Stored.Default(begin)
				}
				first, err := k.FromStored(begin)
				if err != nil {
					t.Fatal(err)
				}
				stored, err := k.ToStored(viaJSON(t, k, first))
				if err != nil {
					t.Fatal(err)
				}
				second, err := k.FromStored(stored)
				if err != nil {
					t.Fatal(err)
				}
				if reflect.TypeOf(stored) != reflect.TypeOf(k.Stored.New()) || reflect.TypeOf(second) != reflect.TypeOf(k.New()) {
					t.Fatalf("%T and %T", stored, second)
				}
				if third := viaJSON(t, k, second); !apiequality.Semantic.DeepEqual(viaJSON(t, k, first), third) {
					t.Fatal(cmp.Diff(first, third))
				}
			}
		})
	}
}

// thin empties about half of the fields, so that there is something to fill in.
func thin(v reflect.Value, r *rand.Rand) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Field(i); f.CanSet() {
				if f.Kind() != reflect.Struct && r.Intn(2) == 0 {
					f.SetZero()
				}
				thin(f, r)
			}
		}
	case reflect.Pointer:
		if !v.IsNil() {
			thin(v.Elem(), r)
		}
	case reflect.Slice:
		for i := range v.Len() {
			thin(v.Index(i), r)
		}
	}
}
