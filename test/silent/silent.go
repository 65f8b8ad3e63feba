// Package silent stands for a containerd that never answers, for servers and agents under test on which no pods run.
package silent

import "net"

// Listen makes a socket where each connection is ended at once, until the listener is closed.
func Listen(path string) (net.Listener, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	return l, nil
}
