package tagged_test

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api/tagged"
)

type inner struct {
	Name  string `protobuf:"bytes,1,opt,name=name"`
	Count int64  `protobuf:"varint,2,opt,name=count"`
}

type outer struct {
	Meta    metav1.ObjectMeta `protobuf:"bytes,1,opt,name=meta"`
	One     inner             `protobuf:"bytes,2,opt,name=one"`
	Maybe   *inner            `protobuf:"bytes,3,opt,name=maybe"`
	Many    []inner           `protobuf:"bytes,4,rep,name=many"`
	Words   []string          `protobuf:"bytes,5,rep,name=words"`
	Blobs   [][]byte          `protobuf:"bytes,6,rep,name=blobs"`
	Labels  map[string]string `protobuf:"bytes,7,rep,name=labels"`
	Flag    *bool             `protobuf:"varint,8,opt,name=flag"`
	Small   int32             `protobuf:"varint,9,opt,name=small"`
	Ignored string
}

func example() *outer {
	no := false
	return &outer{
		Meta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"a": "b"}}, One: inner{Name: "x", Count: -4}, Maybe: &inner{},
		Many: []inner{{Name: "y"}, {}, {Count: 1 << 40}}, Words: []string{"a", "", "c"}, Blobs: [][]byte{{0, 1}, {2}},
		Labels: map[string]string{"k": "v", "empty": ""}, Flag: &no, Small: -7,
	}
}

func TestJourney(t *testing.T) {
	data, err := tagged.Marshal(example())
	if err != nil {
		t.Fatal(err)
	}
	// A newer program's field is skipped.
	data = protowire.AppendString(protowire.AppendTag(data, 77, protowire.BytesType), "later")
	back := &outer{Small: 3, Words: []string{"old"}}
	if err := tagged.Unmarshal(data, back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(example(), back); diff != "" {
		t.Error(diff)
	}
	again, err := tagged.Marshal(back)
	if err != nil || !bytes.HasPrefix(data, again) {
		t.Errorf("the same value has other bytes: %v", err)
	}
}

func TestCopySharesNothing(t *testing.T) {
	from := example()
	made := tagged.Copy(from)
	if diff := cmp.Diff(from, made); diff != "" {
		t.Fatal(diff)
	}
	made.Meta.Labels["a"], made.Maybe.Name, made.Many[0].Name, made.Words[0], made.Blobs[0][0] = "z", "z", "z", "z", 9
	made.Labels["k"], *made.Flag = "z", true
	if diff := cmp.Diff(example(), from); diff != "" {
		t.Errorf("the original has changed: %s", diff)
	}
	if tagged.Copy[outer](nil) != nil {
		t.Error("nothing becomes something")
	}
}

func FuzzUnmarshal(f *testing.F) {
	good, err := tagged.Marshal(example())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{0x22, 0x80})
	f.Add(bytes.Repeat([]byte{0x12, 0x02}, 40))
	f.Fuzz(func(t *testing.T, data []byte) {
		var first, second outer
		if tagged.Unmarshal(data, &first) != nil {
			return
		}
		value, err := tagged.Marshal(&first)
		if err != nil {
			t.Fatal(err)
		}
		if err := tagged.Unmarshal(value, &second); err != nil {
			t.Fatal(err)
		}
		again, err := tagged.Marshal(&second)
		if err != nil || !reflect.DeepEqual(value, again) {
			t.Fatalf("%v\n%x\n%x", err, value, again)
		}
	})
}
