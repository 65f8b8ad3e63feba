package dev

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// serialPort is a stand-in for a sensor on a serial line: a pseudo-terminal that a measurement comes out of once a second.
type serialPort struct {
	path   string
	master *os.File
	once   sync.Once
	stop   chan struct{}
	done   chan struct{}
}

// AttachSerial gives the device a serial line as shoal.dev/serial. It must be called before Start.
func (l *Lab) AttachSerial(d *Device) error {
	s, err := newSerialPort()
	if err != nil {
		return fmt.Errorf("lab: serial line: %w", err)
	}
	d.serial = s
	return nil
}

func newSerialPort() (*serialPort, error) {
	// Not blocking: a line that nobody reads must not stop the sensor.
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	master := os.NewFile(uintptr(fd), "/dev/ptmx")
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = raw(fd)
	}
	if err != nil {
		return nil, errors.Join(err, master.Close())
	}
	s := &serialPort{
		path:   "/dev/pts/" + strconv.Itoa(number),
		master: master,
		stop:   make(chan struct{}),
		done:   make(chan struct{}),
	}
	// Apps do not run as root; on a real device a udev rule or a group gives them the line.
	if err := os.Chmod(s.path, 0o666); err != nil {
		return nil, errors.Join(err, master.Close())
	}
	go s.measure()
	return s, nil
}

// raw switches echo and line editing off.
func raw(fd int) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	return unix.IoctlSetTermios(fd, unix.TCSETS, t)
}

func (s *serialPort) measure() {
	defer close(s.done)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-s.stop:
			return
		case <-tick.C:
			_ = s.master.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
			// A full line loses measurements, as real ones do.
			_, _ = fmt.Fprintf(s.master, "temperature=%d.%d\n", 20+n%5, n%10)
		}
	}
}

// Close ends the measurements and the line.
func (s *serialPort) Close() error {
	var err error
	s.once.Do(func() {
		close(s.stop)
		<-s.done
		err = s.master.Close()
	})
	return err
}
