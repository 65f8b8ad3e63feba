package wire

import (
	"context"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// keepWatchdog tells the service manager that this process is alive, as often as it asks for (WatchdogSec=, sd_notify(3)), for as long as
// alive returns. A process whose parts wait for each other for ever is ended and started again by it; of a trial of shoal itself, that
// is one try. Without a manager that asks it does nothing.
func keepWatchdog(ctx context.Context, alive func()) error {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval <= 0 {
		return nil //nolint:nilerr // what the environment says is no watchdog
	}
	ticker := time.NewTicker(interval / 3)
	defer ticker.Stop()
	for {
		alive()
		_, _ = daemon.SdNotify(false, daemon.SdNotifyWatchdog) // the next one may arrive; if none does, the manager acts
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
