package wire

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestFollowAddress gives a device addresses that come and go, and then one that stays.
func TestFollowAddress(t *testing.T) {
	for name, test := range map[string]struct {
		seen []string
		want string // in the error; none: it goes on
	}{
		"the same":        {seen: []string{"10.0.0.1", "10.0.0.1", "10.0.0.1"}},
		"one in between":  {seen: []string{"10.0.0.1", "169.254.3.4", "10.0.0.1", "10.0.0.7", "10.0.0.1"}},
		"another one":     {seen: []string{"10.0.0.1", "10.0.0.2", "10.0.0.2"}, want: "was 10.0.0.1 and is 10.0.0.2 now"},
		"after searching": {seen: []string{"10.0.0.2", "10.0.0.3", "10.0.0.3"}, want: "is 10.0.0.3 now"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				look := 0
				err := followAddress(ctx, "10.0.0.1", func() string {
					look++
					return test.seen[min(look, len(test.seen))-1]
				}, addressLook)
				if test.want == "" && !errors.Is(err, context.DeadlineExceeded) || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
					t.Errorf("followAddress: %v", err)
				}
			})
		})
	}
}
