// Package hardwaretest owns boards for tests: folders that look like the sysfs, the device nodes and the procfs of a real board.
// Things can be plugged in and out.
package hardwaretest

import (
	_ "embed"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-edge/shoal/agent/hardware"
)

//go:embed pi4.txt
var pi4 string

// usbPath is where the USB hosts of the board are in sysfs.
const usbPath = "devices/platform/scb/fd500000.pcie/pci0000:00/0000:00:00.0/0000:01:00.0/"

// Board is a faked board.
type Board struct {
	Config hardware.Config
	t      testing.TB
}

// Pi4 is a Raspberry Pi 4 with much plugged in; pi4.txt says what.
func Pi4(t testing.TB) *Board {
	b := Empty(t)
	b.Plug(pi4)
	return b
}

// Empty is a board with no devices.
func Empty(t testing.TB) *Board {
	dir := t.TempDir()
	b := &Board{t: t, Config: hardware.Config{Sys: dir + "/sys", Dev: dir + "/dev", Proc: dir + "/proc"}}
	for _, d := range []string{b.Config.Sys, b.Config.Dev, b.Config.Proc} {
		b.check(os.MkdirAll(d, 0o755))
	}
	return b
}

// Plug adds what the text says, in the language of pi4.txt.
func (b *Board) Plug(text string) {
	b.t.Helper()
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case "", "#":
		case "node":
			b.write(filepath.Join(b.Config.Dev, rest), "")
		case "proc":
			file, content, _ := strings.Cut(rest, " = ")
			b.write(filepath.Join(b.Config.Proc, file), content)
		case "usb":
			b.usb(strings.SplitN(rest, " ", 6))
		case "interface":
			b.usbInterface(strings.Fields(rest))
		default:
			if link, target, ok := strings.Cut(line, " -> "); ok {
				b.link(link, target)
			} else if file, content, ok := strings.Cut(line, " = "); ok {
				b.write(filepath.Join(b.Config.Sys, file), content)
			} else {
				b.t.Fatalf("what does this mean: %q", line)
			}
		}
	}
}

// Unplug removes files, links and folders of sysfs, and device nodes below dev/.
func (b *Board) Unplug(paths ...string) {
	b.t.Helper()
	for _, p := range paths {
		file := filepath.Join(b.Config.Sys, p)
		if node, ok := strings.CutPrefix(p, "dev/"); ok {
			file = filepath.Join(b.Config.Dev, node)
		}
		b.check(os.RemoveAll(file))
	}
}

// USB is where the USB device at a port is in sysfs: "1-1.2".
func USB(port string) string {
	if strings.HasPrefix(port, "usb") {
		return usbPath + port
	}
	bus, _, _ := strings.Cut(port, "-")
	dir, chain := usbPath+"usb"+bus, ""
	for i, part := range strings.Split(port, ".") {
		if chain = part; i > 0 {
			chain = filepath.Base(dir) + "." + part
		}
		dir += "/" + chain
	}
	return dir
}

// usb makes a USB device: port, vendor, product, serial, class, maker|model; "-" for none.
func (b *Board) usb(f []string) {
	dir := USB(f[0])
	bus := strings.TrimPrefix(f[0], "usb")[:1]
	maker, model, _ := strings.Cut(f[5], "|")
	for name, value := range map[string]string{
		"idVendor": f[1], "idProduct": f[2], "serial": f[3], "bDeviceClass": f[4], "manufacturer": maker, "product": model, "busnum": bus, "devnum": "2",
	} {
		if value != "-" {
			b.write(filepath.Join(b.Config.Sys, dir, name), value)
		}
	}
	b.relative(dir+"/subsystem", "bus/usb")
	b.relative(dir+"/driver", "bus/usb/drivers/usb")
	b.relative("bus/usb/devices/"+f[0], dir)
}

// usbInterface makes an interface of a USB device: port, configuration.number, number, driver.
func (b *Board) usbInterface(f []string) {
	dir := USB(f[0]) + "/" + f[0] + ":" + f[1]
	b.write(filepath.Join(b.Config.Sys, dir, "bInterfaceNumber"), f[2])
	b.relative(dir+"/subsystem", "bus/usb")
	if f[3] != "-" {
		b.relative(dir+"/driver", "bus/usb/drivers/"+f[3])
	}
	b.relative("bus/usb/devices/"+filepath.Base(dir), dir)
}

func (b *Board) relative(link, to string) {
	target, err := filepath.Rel(filepath.Dir(link), to)
	b.check(err)
	b.link(link, target)
}

func (b *Board) link(link, target string) {
	b.t.Helper()
	file := filepath.Join(b.Config.Sys, link)
	b.check(os.MkdirAll(filepath.Dir(file), 0o755))
	b.check(os.MkdirAll(filepath.Join(filepath.Dir(file), target), 0o755)) // links of sysfs lead somewhere
	_ = os.Remove(file)
	b.check(os.Symlink(target, file))
}

func (b *Board) write(file, content string) {
	b.t.Helper()
	b.check(os.MkdirAll(filepath.Dir(file), 0o755))
	b.check(os.WriteFile(file, []byte(content+"\n"), 0o644))
}

func (b *Board) check(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}
