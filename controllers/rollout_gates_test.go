package controllers

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
)

// oracle answers the questions of gates without a network.
type oracle struct {
	mu     sync.Mutex
	asked  []string
	answer func(r *http.Request, body string) (int, string)
}

func (o *oracle) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = append(o.asked, r.URL.String())
	code, text := o.answer(r, string(body))
	if code == 0 {
		return nil, errors.New(text)
	}
	w := httptest.NewRecorder()
	w.WriteHeader(code)
	_, _ = w.WriteString(text)
	return w.Result(), nil
}

func (o *oracle) say(code int, text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.answer = func(*http.Request, string) (int, string) { return code, text }
}

func (o *oracle) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.asked)
}

// gated is a rollout of the app "web" with a gate, after its canary has come up.
func gated(t *testing.T, gate fleetv1.Gate, test func(*cluster, *oracle)) {
	inCluster(t, 3, func(c *cluster) {
		o := &oracle{}
		o.say(200, "fine")
		c.stepDown()
		c.http = o
		c.lead()
		gate.Every = &metav1.Duration{Duration: 30 * time.Second}
		c.gates = []fleetv1.Gate{gate}
		c.appRelease()
		test(c, o)
	})
}

func (c *cluster) mustSay(text string) {
	c.Helper()
	if why := c.appRollout().Status.Why; !strings.Contains(why, text) {
		c.Errorf("why: %q, want %q", why, text)
	}
}

func TestWebhookGate(t *testing.T) {
	gate := fleetv1.Gate{Name: "line", Webhook: "http://line.example/ok", HaltFailed: 2}
	t.Run("good", func(t *testing.T) {
		gated(t, gate, func(c *cluster, o *oracle) {
			c.after(10 * time.Minute)
			c.mustStand(fleetv1.Completed, 2, 10)
			if n := o.count(); n < 6 || n > 20 { // two soaks of two minutes, and the last wave
				t.Errorf("asked %d times", n)
			}
		})
	})
	t.Run("what it is asked", func(t *testing.T) {
		gated(t, gate, func(c *cluster, o *oracle) {
			var body string
			o.mu.Lock()
			o.answer = func(r *http.Request, b string) (int, string) { body = r.Method + " " + b; return 204, "" }
			o.mu.Unlock()
			c.after(time.Minute)
			for _, want := range []string{"POST", `"rollout":"up"`, `"release":"r2"`, `"wave":"canary"`, `"updated":1`} {
				if !strings.Contains(body, want) {
					t.Errorf("%s does not say %s", body, want)
				}
			}
		})
	})
	t.Run("bad", func(t *testing.T) {
		gated(t, gate, func(c *cluster, o *oracle) {
			o.say(409, "the line stands still")
			c.after(20 * time.Second)
			c.mustStand(fleetv1.Soaking, 0, 1) // one bad answer is none
			c.after(time.Minute)
			c.mustStand(fleetv1.Halted, 0, 0)
			c.mustSay("wave canary: gate line: 409 the line stands still")
			c.held(-1, "app:1")
			n := o.count()
			c.after(time.Hour)
			if o.count() != n {
				t.Error("a halted rollout asks")
			}
			o.say(200, "")
			c.modify(key(rollouts, "", "up"), "", func(o api.Object) { o.(*fleetv1.Rollout).Spec.Retries = 1 })
			c.after(10 * time.Minute)
			c.mustStand(fleetv1.Completed, 2, 10)
		})
	})
	t.Run("silent", func(t *testing.T) {
		gated(t, gate, func(c *cluster, o *oracle) {
			o.say(0, "no route to host")
			c.after(24 * time.Hour)
			c.mustStand(fleetv1.Soaking, 0, 1)
			c.mustSay("wave canary waits for gate line: no answer")
			o.say(503, "")
			c.after(time.Hour)
			c.mustStand(fleetv1.Soaking, 0, 1)
			c.stepDown() // the next leader asks anew
			c.lead()
			o.say(200, "")
			c.after(10 * time.Minute)
			c.mustStand(fleetv1.Completed, 2, 10)
		})
	})
}

func TestMetricGate(t *testing.T) {
	value := func(v string) string {
		return fmt.Sprintf(`{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1700000000.1,%q]}]}}`, v)
	}
	gate := fleetv1.Gate{Name: "errors", Waves: []string{"canary"}, HaltFailed: 1, Metric: &fleetv1.Metric{
		URL: "http://prometheus.example/", Query: `sum(rate(errors[1m]))`, Min: "-1", Max: "0.05",
	}}
	for name, c := range map[string]struct {
		body, says string
		phase      fleetv1.Phase
		wave       int32
		updated    int
	}{
		"good":           {body: value("0.05"), phase: fleetv1.Completed, wave: 2, updated: 10},
		"a scalar":       {body: `{"status":"success","data":{"resultType":"scalar","result":[1,"0"]}}`, phase: fleetv1.Completed, wave: 2, updated: 10},
		"too high":       {body: value("0.06"), phase: fleetv1.Halted, says: "gate errors: 0.06 is above 0.05: sum(rate(errors[1m]))"},
		"too low":        {body: value("-2"), phase: fleetv1.Halted, says: "-2 is below -1"},
		"not a number":   {body: value("NaN"), phase: fleetv1.Halted, says: "NaN is below"},
		"no value":       {body: `{"status":"success","data":{"resultType":"vector","result":[]}}`, phase: fleetv1.Soaking, updated: 1, says: "the query has 0 values"},
		"a failed query": {body: `{"status":"error","error":"parse error"}`, phase: fleetv1.Soaking, updated: 1, says: "the query failed: parse error"},
		"no JSON":        {body: `<html>`, phase: fleetv1.Soaking, updated: 1, says: "no answer"},
		"a range":        {body: `{"status":"success","data":{"resultType":"matrix","result":[]}}`, phase: fleetv1.Soaking, updated: 1, says: "the query's result is a matrix"},
	} {
		t.Run(name, func(t *testing.T) {
			gated(t, gate, func(cl *cluster, o *oracle) {
				o.say(200, c.body)
				cl.after(20 * time.Minute)
				cl.mustStand(c.phase, c.wave, c.updated)
				cl.mustSay(c.says)
				if url := o.asked[0]; url != "http://prometheus.example/api/v1/query?query=sum%28rate%28errors%5B1m%5D%29%29" {
					t.Errorf("asked %s", url)
				}
			})
		})
	}
}
