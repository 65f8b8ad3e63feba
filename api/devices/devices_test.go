package devices

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEncode(t *testing.T) {
	list := []Device{{Resource: "shoal.dev/serial", Name: "usb-1", Attributes: map[string]string{"usb-vendor": "0403", "usb-maker": "FTDI"}}}
	if diff := cmp.Diff(list, Decode(Encode(list))); diff != "" {
		t.Error(diff)
	}
	if Encode(nil) != "" || Decode("") != nil || Decode("{") != nil {
		t.Error("nothing is something")
	}
}

// A board full of devices still has a short annotation, and tells of as many as fit.
func TestEncodeIsBounded(t *testing.T) {
	var list []Device
	for i := range 500 {
		list = append(list, Device{Resource: "shoal.dev/serial", Name: fmt.Sprintf("usb-%d", i), Attributes: map[string]string{
			"usb-vendor": "0403", "usb-maker": strings.Repeat("m", 90), "usb-model": strings.Repeat("x", 90),
		}})
	}
	list[499].Attributes[Machine] = "press-3"
	text := Encode(list)
	got := Decode(text)
	if len(text) > MaxAnnotation || len(got) < 30 || got[0].Attributes[Machine] != "press-3" || got[1].Attributes["usb-vendor"] != "0403" || got[0].Attributes["usb-model"] != "" {
		t.Errorf("%d bytes, %d devices, %v", len(text), len(got), got[0])
	}
	if few := Decode(Encode(list[:20])); len(few) != 20 || few[0].Attributes["usb-maker"] != "" || few[0].Attributes["usb-model"] == "" {
		t.Errorf("%v", few[0])
	}
}

func TestWanted(t *testing.T) {
	d := Device{Resource: "shoal.dev/serial", Name: "usb-1", Attributes: map[string]string{"usb-vendor": "0403", "usb-serial": "A5"}}
	for _, test := range []struct {
		text string
		fits bool
		bad  bool
	}{
		{"usb-vendor=0403", true, false},
		{"usb-vendor=0403, usb-serial=A*", true, false},
		{"name=usb-1", true, false},
		{"usb-vendor=0404", false, false},
		{"usb-port=*", false, false},
		{"usb-vendor", false, true},
		{"=x", false, true},
		{"usb-vendor=0403,", false, true},
	} {
		m, err := Wanted(map[string]string{"devices.shoal.dev/serial": test.text}, "shoal.dev/serial")
		if (err != nil) != test.bad || err == nil && m.Matches(d) != test.fits {
			t.Errorf("%s: %v, %v", test.text, m, err)
		}
	}
	if m, err := Wanted(map[string]string{"devices.shoal.dev/serial": "a=b"}, "vendor.example/serial"); m != nil || err != nil {
		t.Errorf("%v, %v", m, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(`[{"resource":"shoal.dev/serial","name":"a","attributes":{"b":"c"}}]`, "b=c")
	f.Fuzz(func(t *testing.T, text, selector string) {
		m, err := Parse(selector)
		for _, d := range Decode(text) {
			if err == nil {
				m.Matches(d)
			}
		}
		if again, err2 := Parse(m.String()); err == nil && (err2 != nil || !cmp.Equal(m, again)) {
			t.Errorf("%q: %v, %v", selector, m, again)
		}
	})
}
