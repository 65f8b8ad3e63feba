package isolate

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// Main is the main function of a program that has its whole work done in namespaces of its own. run gets a context that ends when somebody
// asks it to, and says how much of what it tried has failed.
func Main(name string, run func(ctx context.Context) (failed int, err error)) {
	if err := Possible(); err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1)
	}
	if !Inside() {
		os.Exit(Again())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	failed, err := 0, Settle()
	if err == nil {
		failed, err = run(ctx)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
	}
	if err != nil || failed > 0 {
		os.Exit(1)
	}
}
