//go:build shoal_failpoints

package failpoint

import (
	"fmt"
	"os"
	"sync"
	"syscall"
)

// EnvFile names the variable with the path of the file that says where to die: a place and at which time that it is reached,
// "log.store.before 3". The file may come at any time; it is removed first, so that the next start lives on.
const EnvFile = "SHOAL_FAILPOINT_FILE"

// reached counts how often each line of the file has been reached. A process dies once, so one count is enough for it.
var reached struct {
	sync.Mutex
	line  string
	times int
}

// Hit ends the process by SIGKILL, as a crash does, if the file says so.
func Hit(name string) {
	path := os.Getenv(EnvFile)
	if path == "" {
		return
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return
	}
	var place string
	var time int
	if _, err := fmt.Sscan(string(text), &place, &time); err != nil || place != name {
		return
	}
	reached.Lock()
	defer reached.Unlock()
	if reached.line != string(text) {
		reached.line, reached.times = string(text), 0
	}
	if reached.times++; reached.times < time {
		return
	}
	if err := os.Remove(path); err != nil {
		return // who wrote it has taken it back
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal may take a moment: nothing else happens in it
}
