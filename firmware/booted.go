package firmware

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Reboot restarts the device in order, by its service manager. It may return before that happens.
func Reboot(ctx context.Context, args ...string) error {
	return exec.CommandContext(ctx, "systemctl", append([]string{"reboot"}, args...)...).Run()
}

// BootedSlot is the slot that the kernel's command line names: shoal.slot=a, or b.
func BootedSlot() (string, error) {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", err
	}
	for _, word := range strings.Fields(string(line)) {
		if slot, ok := strings.CutPrefix(word, "shoal.slot="); ok {
			return slot, nil
		}
	}
	return "", fmt.Errorf("the kernel's command line says no shoal.slot: %w", ErrNoSlot)
}
