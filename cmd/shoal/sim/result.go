package sim

import (
	"encoding/json"
	"fmt"
)

// result is what a simulation has measured.
type result struct {
	Devices         int     `json:"devices"`
	Carrier         string  `json:"carrier"`
	Frugal          bool    `json:"frugal,omitempty"`
	Pods            int     `json:"podsPerDevice,omitempty"`
	RegisterSeconds float64 `json:"registerSeconds"`
	PodSeconds      float64 `json:"podSeconds,omitempty"`
	ServerBytes     int64   `json:"serverBytes"`    // resident, the program too
	BytesPerDevice  int64   `json:"bytesPerDevice"` // of the growth of its anonymous memory
	IdleCPU         float64 `json:"idleCPU"`        // of one core
	ReturnSeconds   float64 `json:"returnSeconds,omitempty"`
	Passed          int     `json:"passed"`
	Failed          int     `json:"failed"`
}

// errFailed is the exit status of a simulation that did not keep what is promised.
type errFailed int

func (e errFailed) Error() string {
	return fmt.Sprintf("sim: %d of the promises were not kept", int(e))
}

// print tells the results, checks them, and ends with a line that counts.
func (r *result) print(o options) error {
	var lines []string
	check := func(ok bool, format string, args ...any) {
		word := "PASS"
		if ok {
			r.Passed++
		} else {
			r.Failed++
			word = "FAIL"
		}
		lines = append(lines, word+" "+fmt.Sprintf(format, args...))
	}
	check(r.RegisterSeconds <= maxRegister.Seconds(), "%d devices over %s registered in %.1f s (at most %.0f s)",
		r.Devices, r.Carrier, r.RegisterSeconds, maxRegister.Seconds())
	if o.pods > 0 {
		lines = append(lines, fmt.Sprintf("     %d pods ran after %.1f s", r.Devices*o.pods, r.PodSeconds))
	}
	check(r.BytesPerDevice <= maxBytes, "a device costs the leader %.1f KB of memory (at most %d KB); it has %d MB in all",
		float64(r.BytesPerDevice)/1024, maxBytes>>10, r.ServerBytes>>20)
	check(r.IdleCPU <= maxIdlePart, "the idle leader uses %.2f %% of a core (at most %.0f %%)", r.IdleCPU*100, maxIdlePart*100)
	if o.comeBack {
		check(r.ReturnSeconds <= maxReturn.Seconds(), "all devices came back within %.1f s of the leader's restart (at most %.0f s)",
			r.ReturnSeconds, maxReturn.Seconds())
	}
	if o.output == "json" {
		if err := json.NewEncoder(o.out).Encode(r); err != nil {
			return err
		}
	} else {
		lines = append(lines, fmt.Sprintf("%d passed, %d failed", r.Passed, r.Failed))
		for _, line := range lines {
			if _, err := fmt.Fprintln(o.out, line); err != nil {
				return err
			}
		}
	}
	if r.Failed > 0 {
		return errFailed(r.Failed)
	}
	return nil
}
