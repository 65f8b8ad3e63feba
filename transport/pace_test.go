package transport

import (
	"net"
	"testing"
	"time"
)

// TestSegments has a quiet connection's kernel ask the peer's: the peer sees it, though nothing can be read.
func TestSegments(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	dialer := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 20}}
	device, err := dialer.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	before, ok := Segments(server)
	if !ok {
		t.Fatal("the kernel does not tell")
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if now, _ := Segments(server); now > before {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no segment came on a connection whose kernel asks every second")
		}
	}
	if _, ok := Segments(&net.IPConn{}); ok {
		t.Fatal("a connection that is not TCP has segments")
	}
}
