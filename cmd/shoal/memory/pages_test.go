package memory

import (
	"strings"
	"testing"
)

func TestEachReadOnly(t *testing.T) {
	const maps = `00400000-00500000 r-xp 00000000 08:01 42                                 /usr/bin/shoal
00500000-00580000 r--p 00100000 08:01 42                                 /usr/bin/shoal
00580000-00590000 rw-p 00180000 08:01 42                                 /usr/bin/shoal
7f0000000000-7f0000001000 r--s 00000000 08:01 43                         /var/lib/shoal/agent.db
c000000000-c000400000 rw-p 00000000 00:00 0
`
	var size uintptr
	err := eachReadOnly(strings.NewReader(maps), "/usr/bin/shoal", func(start, end uintptr) error {
		size += end - start
		return nil
	})
	if err != nil || size != 0x180000 {
		t.Errorf("%#x bytes of the program are read-only, %v; want 0x180000", size, err)
	}
}

func TestDropProgramPages(t *testing.T) {
	if err := dropProgramPages(); err != nil {
		t.Fatal(err)
	}
	// The code that runs here has just been dropped, and is back.
	if strings.Repeat("a", 3) != "aaa" {
		t.Error("the program is not what it was")
	}
}
