package raft

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	hclog "github.com/hashicorp/go-hclog"
)

// repeatAfter is how long the same message of the library is not logged again: with a server away it repeats some of them
// several times a second, for as long as that lasts.
const repeatAfter = 30 * time.Second

// libraryLog passes the library's messages on, a level lower than it thinks of them: its news is our detail.
type libraryLog struct {
	logger *slog.Logger

	mu   sync.Mutex
	last map[string]time.Time // by message; the library's messages are few and fixed
}

func newLibraryLogger(logger *slog.Logger) hclog.Logger {
	intercept := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Off, Output: io.Discard})
	intercept.RegisterSink(&libraryLog{logger: logger, last: map[string]time.Time{}})
	return intercept
}

// Accept takes one message.
func (l *libraryLog) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	if level >= hclog.Warn {
		to = slog.LevelWarn
	}
	if !l.logger.Enabled(context.Background(), to) || l.repeated(msg) {
		return
	}
	l.logger.Log(context.Background(), to, "raft: "+msg, args...)
}

func (l *libraryLog) repeated(msg string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if last, ok := l.last[msg]; ok && now.Sub(last) < repeatAfter {
		return true
	}
	l.last[msg] = now
	return false
}
