package hardware

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxUevent bounds a message of the kernel: its buffer is 2 KiB, and the head is a path.
const maxUevent = 8 << 10

// Watch calls f whenever the kernel tells that hardware came or went, until ctx ends (its error is nil then) or the socket fails.
// f is also called when messages were lost, and must be quick. Messages are of kobject_uevent over netlink; those of
// other senders than the kernel are ignored.
func Watch(ctx context.Context, f func()) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return fmt.Errorf("hardware: uevents: %w", err)
	}
	const kernel = 1 // the multicast group of the kernel; udev's is 2
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernel}); err != nil {
		return errors.Join(fmt.Errorf("hardware: uevents: %w", err), unix.Close(fd))
	}
	file := os.NewFile(uintptr(fd), "uevents")
	stop := context.AfterFunc(ctx, func() { _ = file.Close() })
	defer func() {
		stop()
		_ = file.Close()
	}()
	conn, err := file.SyscallConn()
	if err != nil {
		return fmt.Errorf("hardware: uevents: %w", err)
	}
	buffer := make([]byte, maxUevent)
	for {
		var n int
		var from unix.Sockaddr
		var got error
		err := conn.Read(func(fd uintptr) bool {
			n, from, got = unix.Recvfrom(int(fd), buffer, 0)
			return !errors.Is(got, unix.EAGAIN)
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("hardware: uevents: %w", err)
		case errors.Is(got, unix.ENOBUFS): // more came than fits; what was lost is not known
			f()
		case errors.Is(got, unix.EINTR):
		case got != nil:
			return fmt.Errorf("hardware: uevents: %w", got)
		default:
			if sender, ok := from.(*unix.SockaddrNetlink); ok && sender.Pid == 0 && Concerns(buffer[:n]) {
				f()
			}
		}
	}
}

// Concerns reports whether a message tells of hardware that a class looks for: "add@/devices/...", then NAME=value, each with a
// zero byte at its end.
func Concerns(message []byte) bool {
	var action, subsystem, path string
	for i, part := range strings.Split(string(message), "\x00") {
		key, value, ok := strings.Cut(part, "=")
		switch {
		case i == 0 && !strings.Contains(part, "@"):
			return false // udev's messages begin with "libudev"
		case !ok:
		case key == "ACTION":
			action = value
		case key == "SUBSYSTEM":
			subsystem = value
		case key == "DEVPATH":
			path = value
		}
	}
	if strings.HasPrefix(path, "/devices/virtual/") || !slices.Contains(subsystems(), subsystem) {
		return false
	}
	switch action {
	case "add", "remove", "bind", "unbind", "move", "online", "offline":
		return true
	case "change":
		return subsystem == "block" // a card was put into a reader
	}
	return false
}

func subsystems() []string {
	return []string{
		"accel", "apex", "block", "drm", "gpio", "habanalabs", "hailo_chardev", "i2c-dev", "media", "spidev", "tpm", "tpmrm", "tty", "usb",
		"usb-serial", "video4linux", "watchdog",
	}
}
