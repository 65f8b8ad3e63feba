package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestARMBinariesStart starts what make build-arm built, which sets SHOAL_ARM, under qemu-user.
func TestARMBinariesStart(t *testing.T) {
	for binary, emulator := range map[string]string{
		"shoal-linux-arm64": "qemu-aarch64-static",
		"shoal-linux-armv7": "qemu-arm-static",
		"shoal-linux-armv6": "qemu-arm-static",
	} {
		t.Run(binary, func(t *testing.T) {
			path := filepath.Join("..", "..", "bin", binary)
			if _, err := os.Stat(path); err != nil && os.Getenv("SHOAL_ARM") == "" {
				t.Skip("not built: make build-arm")
			}
			cmd := exec.CommandContext(t.Context(), emulator, path, "version")
			if strings.HasSuffix(binary, "armv6") {
				cmd.Env = append(os.Environ(), "QEMU_CPU=arm1176") // the CPU of the first Raspberry Pi
			}
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.HasPrefix(string(out), "shoal ") {
				t.Fatalf("%v\n%s", err, out)
			}
		})
	}
}
