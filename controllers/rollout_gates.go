package controllers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
	"github.com/shoal-edge/shoal/controllers/waves"
	"github.com/shoal-edge/shoal/store"
)

// Bounds of a question: the other side may be anything.
const (
	gatePatience = 5 * time.Second
	gateAnswer   = 64 << 10 // bytes
	gateReason   = 200      // bytes of it that people see
)

// askGates asks the gates of a wave that soaks, each as often as it says. It returns nil if none was asked.
func (r *rolloutLoop) askGates(ctx context.Context, k store.Key, rollout *fleetv1.Rollout) []fleetv1.Answer {
	s := &rollout.Status
	if s.Phase != fleetv1.Soaking || len(rollout.Spec.Gates) == 0 || int(s.Wave) >= len(rollout.Spec.Waves) {
		return nil
	}
	now, asked := time.Now(), false
	answers := make([]fleetv1.Answer, len(rollout.Spec.Gates))
	var group errgroup.Group
	for i := range rollout.Spec.Gates {
		g := &rollout.Spec.Gates[i]
		answers[i] = lastAnswer(rollout, g)
		due := r.asked[question{k, g.Name}].Add(g.Every.Duration)
		fresh := answers[i].Wave == s.Wave && answers[i].Generation == rollout.Generation
		if !waves.Asked(g, &rollout.Spec.Waves[s.Wave]) || fresh && now.Before(due) {
			continue
		}
		asked = true
		r.asked[question{k, g.Name}] = now
		if !fresh {
			answers[i] = fleetv1.Answer{Gate: g.Name, Wave: s.Wave, Generation: rollout.Generation}
		}
		group.Go(func() error { ask(ctx, r.c.cfg.HTTP, rollout, g, &answers[i]); return nil })
	}
	_ = group.Wait() // what went wrong is in the answers
	if !asked {
		return nil
	}
	return answers
}

// question is a gate of a rollout.
type question struct {
	rollout store.Key
	gate    string
}

func lastAnswer(rollout *fleetv1.Rollout, g *fleetv1.Gate) fleetv1.Answer {
	for _, a := range rollout.Status.Answers {
		if a.Gate == g.Name {
			return a
		}
	}
	return fleetv1.Answer{Gate: g.Name, Wave: -1}
}

// ask asks one gate, and takes its answer in.
func ask(ctx context.Context, client *http.Client, rollout *fleetv1.Rollout, g *fleetv1.Gate, a *fleetv1.Answer) {
	ctx, cancel := context.WithTimeout(ctx, gatePatience)
	defer cancel()
	var good bool
	var err error
	if g.Metric != nil {
		good, a.Why, err = measure(ctx, client, g.Metric)
	} else {
		good, a.Why, err = post(ctx, client, rollout, g.Webhook)
	}
	switch {
	case err != nil:
		a.Good, a.Why = false, "no answer: "+err.Error()
	case good:
		a.Good, a.Bad = true, 0
	default:
		a.Good = false
		a.Bad++
	}
}

// post asks a webhook.
func post(ctx context.Context, client *http.Client, rollout *fleetv1.Rollout, to string) (good bool, why string, err error) {
	body, err := json.Marshal(map[string]any{
		"rollout": rollout.Name, "release": rollout.Spec.Release, "wave": rollout.Spec.Waves[rollout.Status.Wave].Name, "counts": rollout.Status.Counts,
	})
	if err != nil {
		return false, "", err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return false, "", err
	}
	request.Header.Set("Content-Type", "application/json")
	code, text, err := exchange(client, request)
	if err != nil {
		return false, "", err
	}
	why = strings.ToValidUTF8(strings.TrimSpace(string(text[:min(len(text), gateReason)])), "?")
	switch code / 100 {
	case 2:
		return true, why, nil
	case 4:
		return false, fmt.Sprintf("%d %s", code, why), nil
	}
	return false, "", fmt.Errorf("%s says %d", to, code)
}

func exchange(client *http.Client, request *http.Request) (code int, body []byte, err error) {
	answer, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err = io.ReadAll(io.LimitReader(answer.Body, gateAnswer))
	return answer.StatusCode, body, err
}

// measure asks Prometheus (https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries).
func measure(ctx context.Context, client *http.Client, m *fleetv1.Metric) (good bool, why string, err error) {
	to := strings.TrimSuffix(m.URL, "/") + "/api/v1/query?query=" + url.QueryEscape(m.Query)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, to, nil)
	if err != nil {
		return false, "", err
	}
	code, body, err := exchange(client, request)
	if err != nil {
		return false, "", err
	}
	value, err := sample(body)
	if err != nil {
		return false, "", fmt.Errorf("%s says %d: %w", m.URL, code, err)
	}
	for _, bound := range []struct {
		text, word string
		broken     func(bound float64) bool
	}{
		{m.Min, "below", func(b float64) bool { return !(value >= b) }}, // a NaN is no good value
		{m.Max, "above", func(b float64) bool { return !(value <= b) }},
	} {
		if bound.text == "" {
			continue
		}
		limit, err := strconv.ParseFloat(bound.text, 64)
		if err != nil {
			return false, "", err
		}
		if bound.broken(limit) {
			return false, fmt.Sprintf("%g is %s %s: %s", value, bound.word, bound.text, m.Query), nil
		}
	}
	return true, strconv.FormatFloat(value, 'g', -1, 64), nil
}

// sample is the value of an answer to an instant query: a scalar, or a vector with one element.
func sample(body []byte) (float64, error) {
	var answer struct {
		Status, Error string
		Data          struct {
			ResultType string
			Result     json.RawMessage
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return 0, err
	}
	if answer.Status != "success" {
		return 0, fmt.Errorf("the query failed: %s", answer.Error)
	}
	var pair []any
	switch answer.Data.ResultType {
	case "scalar":
		if err := json.Unmarshal(answer.Data.Result, &pair); err != nil {
			return 0, err
		}
	case "vector":
		var list []struct{ Value []any }
		if err := json.Unmarshal(answer.Data.Result, &list); err != nil {
			return 0, err
		}
		if len(list) != 1 {
			return 0, fmt.Errorf("the query has %d values, and has to have one", len(list))
		}
		pair = list[0].Value
	}
	if len(pair) != 2 {
		return 0, fmt.Errorf("the query's result is a %s", answer.Data.ResultType)
	}
	text, _ := pair[1].(string)
	return strconv.ParseFloat(text, 64)
}
