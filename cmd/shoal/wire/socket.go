package wire

import (
	"context"
	"fmt"
	"net"
	"time"
)

// checkContainerd refuses a first start on a device whose containerd does not answer, before the device joins: a person is
// looking. Later starts go on without: containerd may come up after shoal, and pods run without either.
func checkContainerd(ctx context.Context, o Options) error {
	if o.Runtime != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", o.Config.Agent.Containerd)
	if err != nil {
		return fmt.Errorf("containerd does not answer: %w; start it (systemctl start shoal-containerd), or name its socket with agent.containerd", err)
	}
	return conn.Close()
}
