package hardware_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-edge/shoal/agent/hardware"
	"github.com/shoal-edge/shoal/agent/hardware/hardwaretest"
	"github.com/shoal-edge/shoal/api/devices"
)

func scan(t *testing.T, c hardware.Config) []string {
	t.Helper()
	found, err := hardware.Scan(c)
	if err != nil {
		t.Fatal(err)
	}
	lines := make([]string, 0, len(found))
	for _, d := range found {
		what := d.Resource
		if d.Left != "" {
			what = "- " + d.Left
		}
		lines = append(lines, fmt.Sprintf("%s %s %s", d.ID, strings.Join(d.Nodes, ","), what))
	}
	return lines
}

func TestPi4(t *testing.T) {
	b := hardwaretest.Pi4(t)
	b.Config.Classes = []string{"all"}
	want := []string{
		"camera/fe00b840.mailbox /dev/video10,/dev/video11 - it is a codec, not a camera",
		"camera/fe801000.csi /dev/video0,/dev/v4l-subdev0,/dev/media0 shoal.dev/camera",
		"camera/usb-046d-082d-8a2c5f3f-if00 /dev/video1,/dev/video2,/dev/media1 shoal.dev/camera",
		"disk/035344534333324780bb1c6a00013b00 /dev/mmcblk0,/dev/mmcblk0p2 - it is mounted at /",
		"disk/usb-0781-5583-4c530001-if00 /dev/sda,/dev/sda1 shoal.dev/disk",
		"gpio/fe200000.gpio /dev/gpiochip0 shoal.dev/gpio",
		"gpio/soc-firmware-gpio /dev/gpiochip1 shoal.dev/gpio",
		"gpu/fec00000.v3d /dev/dri/renderD128,/dev/dri/card1 shoal.dev/gpu",
		"gpu/gpu /dev/dri/card0 - it has no render node: it drives displays only",
		"i2c/fe804000.i2c /dev/i2c-1 shoal.dev/i2c",
		"npu/pci-0001-01-00.0 /dev/hailo0 shoal.dev/npu",
		"serial/fe201000.serial /dev/ttyAMA0 shoal.dev/serial",
		"serial/fe215040.serial /dev/ttyS0 - it is the kernel's console",
		"serial/usb-0403-6001-a50285bi-if00 /dev/ttyUSB0 shoal.dev/serial",
		"serial/usb-1546-01a9-4711-if00 /dev/ttyACM0 shoal.dev/serial",
		"serial/usb-1546-01a9-4711-if02 /dev/ttyACM1 shoal.dev/serial",
		"serial/usb-1a86-7523-port-1-1.2-if00 /dev/ttyUSB1 shoal.dev/serial",
		"serial/usb-1a86-7523-port-1-1.3-if00 /dev/ttyUSB2 shoal.dev/serial",
		"spi/fe204000.spi-cs0 /dev/spidev0.0 shoal.dev/spi",
		"spi/fe204000.spi-cs1 /dev/spidev0.1 shoal.dev/spi",
		"tpm/fe204000.spi /dev/tpmrm0 shoal.dev/tpm",
		"usb/usb-0403-6001-a50285bi /dev/bus/usb/001/002 - the kernel's driver ftdi_sio has it",
		"usb/usb-046d-082d-8a2c5f3f /dev/bus/usb/002/002 - the kernel's driver uvcvideo has it",
		"usb/usb-046d-c31c-port-1-1.4.1 /dev/bus/usb/001/002 - the kernel's driver usbhid has it",
		"usb/usb-0781-5583-4c530001 /dev/bus/usb/002/002 - the kernel's driver usb-storage has it",
		"usb/usb-1546-01a9-4711 /dev/bus/usb/001/002 - the kernel's driver cdc_acm has it",
		"usb/usb-18d1-9302-port-2-1 /dev/bus/usb/002/002 shoal.dev/usb",
		"usb/usb-1a86-7523-port-1-1.2 /dev/bus/usb/001/002 - the kernel's driver ch341 has it",
		"usb/usb-1a86-7523-port-1-1.3 /dev/bus/usb/001/002 - the kernel's driver ch341 has it",
		"usb/usb-2109-3431-port-1-1 /dev/bus/usb/001/002 - it is a hub",
		"watchdog/bcm2835-wdt /dev/watchdog0 - something feeds it already",
	}
	if diff := cmp.Diff(want, scan(t, b.Config)); diff != "" {
		t.Error(diff)
	}
	found, err := hardware.Scan(b.Config)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range found {
		if d.ID != "serial/usb-0403-6001-a50285bi-if00" {
			continue
		}
		attributes := map[string]string{
			"usb-vendor": "0403", "usb-product": "6001", "usb-serial": "A50285BI", "usb-port": "1-1.1", "usb-interface": "00",
			"usb-maker": "FTDI", "usb-model": "FT232R USB UART", "driver": "ftdi_sio",
		}
		if diff := cmp.Diff(attributes, d.Attributes); diff != "" {
			t.Error(diff)
		}
	}
}

// What the configuration says is what is offered.
func TestOffer(t *testing.T) {
	b := hardwaretest.Pi4(t)
	if err := os.MkdirAll(b.Config.Dev+"/serial/by-id", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../ttyACM0", b.Config.Dev+"/serial/by-id/modem"); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "stand-in")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := b.Config
	c.Classes = []string{"serial"}
	c.Exclude = []devices.Match{{"usb-vendor": "1a86", "usb-port": "1-1.3"}}
	c.Declared = []hardware.Declared{
		{Resource: "shoal.dev/plc", Match: devices.Match{"class": "serial", "usb-serial": "A5028*"}, ContainerPath: "/dev/plc"},
		{Resource: "shoal.dev/modem", Path: "/dev/serial/by-id/modem"},
		{Resource: "shoal.dev/keyboard", Match: devices.Match{"class": "usb", "usb-model": "USB Keyboard"}},
		{Resource: "shoal.dev/standin", Path: file, ContainerPath: "/dev/x"},
		{Resource: "shoal.dev/away", Path: "/dev/ttyGone"},
	}
	var got []string
	found, err := hardware.Scan(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range found {
		if d.Resource != "" {
			got = append(got, fmt.Sprintf("%s %s at %q %s", d.Resource, d.Name, d.Target, d.Left))
		}
	}
	want := []string{
		`shoal.dev/standin ` + strings.Trim(strings.ReplaceAll(strings.ToLower(file), "/", "-"), "-") + ` at "/dev/x" `,
		`shoal.dev/away dev-ttygone at "" it is not plugged in`,
		`shoal.dev/serial fe201000.serial at "" `,
		`shoal.dev/plc usb-0403-6001-a50285bi-if00 at "/dev/plc" `,
		`shoal.dev/modem usb-1546-01a9-4711-if00 at "/dev/serial/by-id/modem" `,
		`shoal.dev/serial usb-1546-01a9-4711-if02 at "" `,
		`shoal.dev/serial usb-1a86-7523-port-1-1.2-if00 at "" `,
		`shoal.dev/keyboard usb-046d-c31c-port-1-1.4.1 at "" `,
	}
	sortFirst(got, want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// sortFirst puts what sysfs does not know, which is sorted by a temporary folder's name, in one order.
func sortFirst(lists ...[]string) {
	for _, l := range lists {
		if len(l) > 1 && strings.HasPrefix(l[0], "shoal.dev/away") {
			l[0], l[1] = l[1], l[0]
		}
	}
}

// A device keeps its name whatever number the kernel gives it, and wherever another one is plugged in.
func TestNamesAreStable(t *testing.T) {
	b := hardwaretest.Pi4(t)
	b.Unplug("class/tty/ttyUSB0", hardwaretest.USB("1-1.1"), "bus/usb/devices/1-1.1", "dev/ttyUSB0")
	at := hardwaretest.USB("1-1.1")
	b.Plug("usb 1-1.1 0403 6001 A50285BI 00 FTDI|FT232R USB UART\ninterface 1-1.1 1.0 00 ftdi_sio\nnode ttyUSB7\n" +
		"class/tty/ttyUSB7 -> ../../" + at + "/1-1.1:1.0/ttyUSB7/tty/ttyUSB7\n" +
		at + "/1-1.1:1.0/ttyUSB7/tty/ttyUSB7/device -> ../../../ttyUSB7\n")
	if got := strings.Join(scan(t, b.Config), "\n"); !strings.Contains(got, "serial/usb-0403-6001-a50285bi-if00 /dev/ttyUSB7 shoal.dev/serial") {
		t.Error(got)
	}
	// A second adapter with the same serial number: both get their port's name, so that neither is taken for the other.
	at = hardwaretest.USB("1-1.5")
	b.Plug("usb 1-1.5 0403 6001 A50285BI 00 FTDI|FT232R USB UART\ninterface 1-1.5 1.0 00 ftdi_sio\nnode ttyUSB8\n" +
		"class/tty/ttyUSB8 -> ../../" + at + "/1-1.5:1.0/ttyUSB8/tty/ttyUSB8\n" +
		at + "/1-1.5:1.0/ttyUSB8/tty/ttyUSB8/device -> ../../../ttyUSB8\n")
	got := strings.Join(scan(t, b.Config), "\n")
	for _, want := range []string{
		"serial/usb-0403-6001-a50285bi-if00-port-1-1.1 /dev/ttyUSB7", "serial/usb-0403-6001-a50285bi-if00-port-1-1.5 /dev/ttyUSB8",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
}

// A tree that lies ends the scan no worse than an empty one: links in circles and out of the tree, endless files, binary names.
func TestHostileTree(t *testing.T) {
	b := hardwaretest.Empty(t)
	sys := b.Config.Sys
	for _, dir := range []string{"class/tty", "devices/a/b", "class/block"} {
		if err := os.MkdirAll(filepath.Join(sys, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{
		"class/tty/out": "../../../../../../etc", "class/tty/abs": "/etc", "class/tty/loop": "loop", "class/tty/ttyX": "../../devices/a/b",
		"devices/a/b/device": "../../a", "devices/a/b/subsystem": "../../../../../../../bus/usb", "class/tty/dots": "../../devices/../../../etc",
	} {
		if err := os.Symlink(to, filepath.Join(sys, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(sys, "devices/a/b/type")); err != nil {
		t.Fatal(err)
	}
	b.Plug("devices/a/b/x = " + strings.Repeat("\x01\xff", 5000))
	got := scan(t, b.Config)
	if diff := cmp.Diff([]string{"serial/ttyx /dev/ttyX - there is no /dev/ttyX"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestNoSysfs(t *testing.T) {
	if got := scan(t, hardware.Config{Sys: t.TempDir() + "/none"}); len(got) != 0 {
		t.Error(got)
	}
}

// The machine that runs the test has hardware of its own; its list is at least consistent.
func TestThisMachine(t *testing.T) {
	found, err := hardware.Scan(hardware.Config{Classes: []string{"all"}})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, d := range found {
		if seen[d.ID] || d.Name == "" || len(d.Nodes) == 0 || d.Offered() && d.Resource != devices.Domain+d.Class {
			t.Errorf("%+v", d)
		}
		seen[d.ID] = true
	}
	data, err := json.MarshalIndent(found, "", " ")
	t.Logf("%s %v", data, err)
}

func BenchmarkScan(b *testing.B) {
	board := hardwaretest.Pi4(b)
	for b.Loop() {
		if _, err := hardware.Scan(board.Config); err != nil {
			b.Fatal(err)
		}
	}
}
