package apiserver

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestPagesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p paged
		p.begin(7)
		for range 5 {
			if p.over(7) {
				t.Fatal("over too early")
			}
			time.Sleep(time.Minute)
		}
		time.Sleep(time.Second)
		if !p.over(7) {
			t.Error("pages may be fetched for ever, if somebody keeps fetching them")
		}
		if p.over(8) { // it began at another server
			t.Error("over before it began here")
		}
		p.begin(7) // nothing has changed since, and another list begins
		if p.over(7) {
			t.Error("a new list is over at once")
		}
	})
}
