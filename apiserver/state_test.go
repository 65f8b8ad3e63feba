package apiserver_test

import (
	"encoding/json"
	"io"
	"net/http"
	"testing"
)

func TestState(t *testing.T) {
	b := newBed(t)
	type state struct {
		Leader   bool
		Revision uint64
		Objects  int
		SHA256   string
	}
	read := func() (s state) {
		t.Helper()
		answer := b.open(call{path: "/shoal/v1/state"})
		body, err := io.ReadAll(answer.Body)
		if err != nil || json.Unmarshal(body, &s) != nil {
			t.Fatalf("%v: %s", err, body)
		}
		return s
	}
	empty := read()
	b.create(configMap("a", nil))
	one := read()
	if again := read(); again != one {
		t.Errorf("the same state twice: %+v and %+v", one, again)
	}
	if !one.Leader || one.Objects != empty.Objects+1 || one.Revision != empty.Revision+1 || one.SHA256 == empty.SHA256 {
		t.Errorf("before %+v, with one more object %+v", empty, one)
	}
	b.remove("a")
	if gone := read(); gone.SHA256 != empty.SHA256 || gone.Revision != one.Revision+1 {
		t.Errorf("before %+v, after the deletion %+v", empty, gone)
	}
	if answer := b.open(call{path: "/shoal/v1/state", as: "somebody|"}); answer.StatusCode == http.StatusOK {
		t.Error("anybody may read it")
	}
}
