package wire

import (
	"context"
	"os/exec"
	"strings"
	"time"
)

// goesDown reports whether the whole device goes down, as systemd says. Where there is no systemd, it never does.
func goesDown() bool {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	// It ends with an error in every state but one, and says the state all the same.
	out, _ := exec.CommandContext(ctx, "systemctl", "is-system-running").Output()
	return strings.TrimSpace(string(out)) == "stopping"
}
