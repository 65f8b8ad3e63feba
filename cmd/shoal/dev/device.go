package dev

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Device is one board of the lab.
type Device struct {
	Name    string
	Role    Role
	Address string
	// Dir holds its configuration, logs and data; Data is shoal's data folder.
	Dir, Data string

	number int
	port   string // the bridge's end of its cable
	token  string
	serial *serialPort

	mu         sync.Mutex
	box        *sandbox
	shoal      *process
	containerd *process
}

func (l *Lab) newDevice(role Role, i int) *Device {
	number := 11 + i
	if role == Agent {
		number = 101 + i
	}
	d := &Device{
		Name:    fmt.Sprintf("%s-%d", role, i+1),
		Role:    role,
		Address: fmt.Sprintf("10.77.%d.%d", l.cfg.Subnet, number),
		number:  number,
		port:    fmt.Sprintf("port%d", number),
	}
	d.Dir = filepath.Join(l.dir, d.Name)
	d.Data = filepath.Join(d.Dir, "shoal")
	return d
}

// ShoalLog and ContainerdLog are the files that the processes log to.
func (d *Device) ShoalLog() string      { return filepath.Join(d.Dir, "shoal.log") }
func (d *Device) ContainerdLog() string { return filepath.Join(d.Dir, "containerd.log") }

// ContainerdSocket is the path of the device's containerd socket as seen from outside it.
func (d *Device) ContainerdSocket() string {
	return fmt.Sprintf("/proc/%d/root%s", d.Init(), containerdSocket)
}

// Init is the process that holds the device, 0 while it is taken away. nsenter -t INIT -a enters the device.
func (d *Device) Init() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.box == nil {
		return 0
	}
	return d.box.pid
}

// ShoalPID is the shoal process, 0 when it does not run.
func (d *Device) ShoalPID() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shoal == nil || !d.shoal.running() {
		return 0
	}
	return d.shoal.pid
}

// Command prepares a command that runs inside the device.
func (d *Device) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return d.box.command(ctx, name, args...)
}

// boot makes the device and starts its containerd, as switching on a board does.
func (l *Lab) boot(ctx context.Context, d *Device) error {
	if err := os.MkdirAll(d.Dir, 0o755); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	box, err := newSandbox(l.state, d.Name)
	if err != nil {
		return fmt.Errorf("lab: %s: %w", d.Name, err)
	}
	d.mu.Lock()
	d.box = box
	d.mu.Unlock()
	if err := l.plug(ctx, d); err != nil {
		return fmt.Errorf("lab: %s: cable: %w", d.Name, err)
	}
	if l.cfg.WithoutContainerd {
		return nil
	}
	if err := l.startContainerd(ctx, d); err != nil {
		return fmt.Errorf("lab: %s: containerd: %w; see %s", d.Name, err, d.ContainerdLog())
	}
	return nil
}

// StartDevice brings back a device that was taken away, with the disk that it had.
func (l *Lab) StartDevice(ctx context.Context, d *Device) error {
	if d.Init() != 0 {
		return fmt.Errorf("lab: %s runs already", d.Name)
	}
	if err := l.boot(ctx, d); err != nil {
		return err
	}
	return l.StartShoal(ctx, d)
}

// StartShoal starts the device's shoal process. It does not wait for it to be ready.
func (l *Lab) StartShoal(ctx context.Context, d *Device) error {
	file, err := l.writeConfig(d)
	if err != nil {
		return fmt.Errorf("lab: %s: %w", d.Name, err)
	}
	p, err := d.box.start(ctx, d.ShoalLog(), l.cfg.Shoal, string(d.Role), "--config", file)
	if err != nil {
		return fmt.Errorf("lab: %s: start shoal: %w", d.Name, err)
	}
	d.mu.Lock()
	d.shoal = p
	d.mu.Unlock()
	return nil
}

// KillShoal ends the device's shoal process with SIGKILL; its containers go on.
func (l *Lab) KillShoal(d *Device) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shoal == nil {
		return fmt.Errorf("lab: %s: shoal does not run", d.Name)
	}
	err := d.shoal.kill()
	d.shoal = nil
	return err
}

// TakeAway cuts the device's power: every process of it ends at once, its disk stays.
func (l *Lab) TakeAway(d *Device) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.box == nil {
		return fmt.Errorf("lab: %s is away already", d.Name)
	}
	err := d.box.kill()
	d.box, d.shoal, d.containerd = nil, nil, nil
	if err != nil {
		return fmt.Errorf("lab: %s: %w", d.Name, err)
	}
	return removeCgroups(cgroupOf(l.cfg.Name) + "/" + d.Name)
}

// Kubeconfig is the administrator's kubeconfig that the first running server wrote.
func (l *Lab) Kubeconfig() string {
	for _, d := range l.devices {
		if d.Role == Server && d.ShoalPID() != 0 {
			return filepath.Join(d.Data, "admin.kubeconfig")
		}
	}
	return filepath.Join(l.devices[0].Data, "admin.kubeconfig")
}

// waitKubeconfig waits until a server has written its administrator's kubeconfig and listens.
func (l *Lab) waitKubeconfig(ctx context.Context, d *Device) error {
	return wait(ctx, func() error {
		if d.ShoalPID() == 0 {
			return fmt.Errorf("%w: lab: %s: shoal has ended; see %s", errFinal, d.Name, d.ShoalLog())
		}
		if _, err := os.Stat(filepath.Join(d.Data, "admin.kubeconfig")); err != nil {
			return err
		}
		conn, err := net.DialTimeout("tcp", net.JoinHostPort(d.Address, apiPort), time.Second)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// token makes a join token the way a person does. The server may need a moment for its first election.
func (l *Lab) token(ctx context.Context, role Role) (string, error) {
	var token string
	err := wait(ctx, func() error {
		var stderr strings.Builder
		cmd := exec.CommandContext(ctx, l.cfg.Shoal, "token", "create", "--role", string(role), "--kubeconfig", l.Kubeconfig())
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("lab: shoal token create: %w: %s", err, strings.TrimSpace(stderr.String()))
		}
		token = strings.TrimSpace(string(out))
		return nil
	})
	return token, err
}
