package disk

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Loop is a loop device on a file. It goes away by itself when nobody has it open or mounted any more.
type Loop struct {
	Path string
	held *os.File
}

// Attach puts a loop device on a file.
func Attach(path string) (*Loop, error) {
	// Not os.Open: the runtime would poll the file, which this very process serves.
	backing, err := unix.Open(path, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer func() { _ = unix.Close(backing) }() // the device has it
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = control.Close() }()
	for range 100 {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		loop := &Loop{Path: fmt.Sprintf("/dev/loop%d", number)}
		if loop.held, err = os.OpenFile(loop.Path, os.O_RDWR, 0); err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(loop.held.Fd()), &unix.LoopConfig{
			Fd: uint32(backing), Size: Sector,
			Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO},
		})
		if err == nil {
			return loop, nil
		}
		_ = loop.held.Close()
		if !errors.Is(err, unix.EBUSY) { // somebody else was faster
			return nil, fmt.Errorf("set up %s on %s: %w", loop.Path, path, err)
		}
	}
	return nil, errors.New("every free loop device was taken by somebody else")
}

// Release lets the device go as soon as it is not mounted.
func (l *Loop) Release() error { return l.held.Close() }

// unmountTimeout bounds how long the kernel may take to give up on a disk without power.
const unmountTimeout = 10 * time.Second

// Unmount ends a mount. It must not be in use for longer than a process takes to die.
func Unmount(dir string) error {
	var err error
	for end := time.Now().Add(unmountTimeout); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err = unix.Unmount(dir, 0); !errors.Is(err, unix.EBUSY) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}
