package agent

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/shoal-edge/shoal/agent/deviceplugin/deviceplugintest"
)

// openPTY returns the master of a new pty, raw, and the path of its other end.
func openPTY(t *testing.T) (*os.File, string) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	master := os.NewFile(uintptr(fd), "/dev/ptmx")
	t.Cleanup(func() { _ = master.Close() })
	return master, fmt.Sprintf("/dev/pts/%d", number)
}

func asked(names ...corev1.ResourceName) corev1.ResourceList {
	list := corev1.ResourceList{}
	for _, name := range names {
		list[name] = resource.MustParse("1")
	}
	return list
}

// Real devices in real containers: whoever asks has them and can use them, without being privileged; whoever does not has no node, and
// a node that he makes is of no use.
func TestDevicesOnContainerd(t *testing.T) {
	master, tty := openPTY(t)
	b := newBoard(t, func(c *Config) {
		c.Devices = []Device{
			{Resource: "shoal.dev/fuse", Path: "/dev/fuse"},
			{Resource: "shoal.dev/disk", Path: "/dev/loop7", ContainerPath: "/dev/sdx"},
			{Resource: "shoal.dev/serial", Path: tty, ContainerPath: "/dev/ttyS7"},
		}
		c.PluginSocket = filepath.Join(c.DataDir, "p", "kubelet.sock")
	})
	idle := `trap 'exit 0' TERM; while true; do sleep 0.1 & wait $!; done`
	user := testPod("user", `exec 3<>/dev/fuse && echo fuse is open
busybox dd if=/dev/sdx of=/dev/null bs=512 count=1 2>/dev/null && echo disk is open
busybox mknod /tmp/fuse c 10 229; busybox mknod /tmp/loop b 7 6
busybox dd if=/tmp/loop of=/dev/null count=1 2>/dev/null || echo no other disk
exec 4<>$SHOAL_DEVICE_SERIAL_0
echo "$SHOAL_DEVICE_SERIAL_0 $SHOAL_DEVICE_DISK_0 $SHOAL_DEVICE_FUSE_0 $SHOAL_DEVICE_EPOCH" >&4
read line <&4; echo "got $line"
`+idle)
	user.ResourceVersion = "42"
	user.Spec.Containers[0].Resources.Limits = asked("shoal.dev/fuse", "shoal.dev/disk", "shoal.dev/serial")
	none := testPod("none", `ls /dev/fuse /dev/sdx /dev/ttyS7 2>&1 | busybox grep -c "No such"
busybox mknod /tmp/fuse c 10 229 && (exec 3<>/tmp/fuse) 2>&1 | busybox grep -c "not permitted"
`+idle)
	b.apply(encode(t, "pods/default/user", user), encode(t, "pods/default/none", none))
	b.await("both run", func() bool {
		return b.container(user).State.Running != nil && b.container(none).State.Running != nil
	})

	_ = master.SetReadDeadline(time.Now().Add(30 * time.Second))
	lines := bufio.NewReader(master)
	line, err := lines.ReadString('\n')
	if want := "/dev/ttyS7 /dev/sdx /dev/fuse 42"; err != nil || strings.TrimSpace(line) != want {
		t.Errorf("from the container's port: %q, %v", line, err)
	}
	if _, err := master.WriteString("pong\n"); err != nil {
		t.Fatal(err)
	}
	b.logged("user", "200 fuse is open\ndisk is open\nno other disk\ngot pong\n")
	b.logged("none", "200 3\n1\n")

	// A second one waits, also after a restart of the agent, which touches nothing.
	first := b.container(user).ContainerID
	b.stop()
	b.start()
	rival := testPod("rival", idle)
	rival.Spec.Containers[0].Resources.Limits = asked("shoal.dev/fuse")
	b.apply(encode(t, "pods/default/rival", rival))
	b.await("the rival waits", func() bool {
		s := b.container(rival).State.Waiting
		return s != nil && strings.Contains(s.Message, "no free device shoal.dev/fuse")
	})
	if now := b.container(user); now.ContainerID != first || now.RestartCount != 0 {
		t.Errorf("the agent's restart touched the pod: %+v", now)
	}

	// A vendor's plugin has a device of its own.
	folder := filepath.Join(b.dir, "p")
	plugin := &deviceplugintest.Plugin{Resource: "vendor.example/zero", Answer: func(ids []string) (*api.ContainerAllocateResponse, error) {
		return &api.ContainerAllocateResponse{
			Envs:    map[string]string{"ZERO": ids[0]},
			Devices: []*api.DeviceSpec{{ContainerPath: "/dev/" + ids[0], HostPath: "/dev/loop-control", Permissions: "rw"}},
		}, nil
	}}
	probe := &deviceplugintest.Plugin{Resource: "bad"}
	if err := probe.Register(t.Context(), filepath.Join(folder, "kubelet.sock")); err == nil {
		t.Error("a bad resource was taken")
	}
	deviceplugintest.Start(t, plugin, folder, "z1")
	if err := plugin.Register(context.Background(), filepath.Join(folder, "kubelet.sock")); err != nil {
		t.Fatal(err)
	}
	client := testPod("client", `(exec 3<>/dev/$ZERO) && echo $ZERO is open
`+idle)
	client.Spec.Containers[0].Resources.Limits = asked("vendor.example/zero")
	for deadline := time.Now().Add(30 * time.Second); !b.a.devices.isPlugin("vendor.example/zero"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the plugin's devices did not come")
		}
	}
	b.apply(encode(t, "pods/default/client", client))
	b.await("the client runs", func() bool { return b.container(client).State.Running != nil })
	b.logged("client", "200 z1 is open\n")
}

// logged waits until a pod's log is that.
func (b *board) logged(pod, want string) {
	b.t.Helper()
	got := ""
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if got = b.get("/containerLogs/default/" + pod + "/main"); got == want {
			return
		}
	}
	b.t.Errorf("log of %s: %q, want %q", pod, got, want)
}
