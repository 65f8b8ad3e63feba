package bench

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// isolated is set in the process that has a network of its own.
const isolated = "SHOAL_BENCH_ISOLATED"

// TestMain runs the benchmarks once more in a new network namespace, so that the servers and their agents touch nothing of this
// machine's network; it has nothing but loopback.
func TestMain(m *testing.M) {
	flag.Parse()
	switch {
	case flag.Lookup("test.bench").Value.String() == "" || os.Geteuid() != 0:
		os.Exit(m.Run())
	case os.Getenv(isolated) != "":
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "switch loopback on: %v\n%s", err, out)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	again := exec.Command("/proc/self/exe", os.Args[1:]...)
	again.Env = append(os.Environ(), isolated+"=1")
	again.Stdout, again.Stderr = os.Stdout, os.Stderr
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := again.Run()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(again.ProcessState.ExitCode())
}

// need skips a benchmark where it cannot run.
func need(b *testing.B, tools ...string) {
	b.Helper()
	if os.Getenv(isolated) == "" {
		b.Skip("makes a network namespace: needs root")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			b.Skipf("%v; run make bench", err)
		}
	}
}
