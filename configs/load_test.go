package configs

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParseDefaults(t *testing.T) {
	c, err := Parse("c.yaml", []byte("nodeName: pi-1\nagent:\n  devices:\n  - {resource: shoal.dev/serial, path: /dev/ttyUSB0}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if c.DataDir != DefaultDataDir || c.Server.NodeGrace != 40*time.Second || c.Agent.Devices[0].ContainerPath != "/dev/ttyUSB0" {
		t.Errorf("defaults are not filled in: %+v", c)
	}
	if _, err := Parse("", nil); err != nil {
		t.Errorf("no file at all must be fine: %v", err)
	}
}

func TestParseErrors(t *testing.T) {
	for name, tc := range map[string]struct{ file, want string }{
		"unknown key":        {"nodeName: a\nserver:\n  nodeGrase: 4s\n", `config: c.yaml:3: unknown key "nodeGrase"; did you mean "nodeGrace"?`},
		"what is no key":     {"addressFound: true\n", "config: c.yaml:1: unknown key \"addressFound\""},
		"far from any":       {"log:\n  colour: red\n", `config: c.yaml:2: unknown key "colour"; known here: level, format`},
		"wrong type":         {"server:\n  nodeBits: many\n", `c.yaml:2: "many" is not a whole number`},
		"wrong duration":     {"agent:\n  heartbeat: 1x\n", `c.yaml:2: "1x" is not a duration, such as 500ms`},
		"far from a log":     {"foo: 1\n", `config: c.yaml:1: unknown key "foo"; known here: nodeName`},
		"nested":             {"server:\n  audit: {files: x}\n", `config: c.yaml:2: unknown key "files"; did you mean "file"?`},
		"a list for a text":  {"nodeName: [a]\n", "c.yaml:1: what is here is not a text"},
		"not YAML":           {"server: [\n", "c.yaml:"},
		"two documents":      {"nodeName: a\n---\nnodeName: b\n", "more than one YAML document"},
		"bad name":           {"nodeName: Pi_1\n", `nodeName "Pi_1"`},
		"relative folder":    {"dataDir: x\n", "must be an absolute path"},
		"relative audit log": {"server:\n  audit: {file: x}\n", "server.audit.file"},
		"no audit log":       {"server:\n  audit: {maxFiles: -1}\n", "maxFiles -1 must be at least 1"},
		"relative key file":  {"server:\n  secretsKeyFile: x\n", "server.secretsKeyFile"},
		"join address":       {"join: {servers: [10.0.0.1]}\n", "must be host:port"},
		"entry without its slot": {
			"agent: {firmware: {hardwareID: x, backend: systemd-boot, systemdBoot: {slotA: {path: /a, entry: efi /a}, slotB: {path: /b, entry: 'options shoal.slot=b'}}}}\n",
			"the entry of slot a must have shoal.slot=a",
		},
		"two tokens":        {"join: {token: a, tokenFile: b}\n", "keep one"},
		"pod network":       {"server: {podCIDR: 10.42.0.1/16}\n", "must be an IPv4 network"},
		"node bits":         {"server: {nodeBits: 16}\n", "server.nodeBits 16"},
		"short time":        {"server: {nodeGrace: 1ms}\n", "server.nodeGrace 1ms must be at least 1s"},
		"voters":            {"server: {voters: 2}\n", "server.voters 2 must be 1, 3 or 5"},
		"voters' grace":     {"server: {voterGrace: 10ms}\n", "server.voterGrace 10ms must be at least 1s"},
		"reserved":          {"agent: {reserved: {cpus: 1}}\n", "unknown resource"},
		"device resource":   {"agent: {devices: [{resource: serial, path: /dev/x}]}\n", "extended resource"},
		"device unnamed":    {"agent: {devices: [{resource: shoal.dev/x}]}\n", "either path or match"},
		"machine":           {"agent: {devices: [{resource: shoal.dev/x, path: /dev/x, machine: Press 3}]}\n", "machine"},
		"device match":      {"agent: {devices: [{resource: shoal.dev/x, match: {usb serial: y}}]}\n", "is no attribute"},
		"class":             {"agent: {discover: {classes: [serail]}}\n", `unknown class "serail"`},
		"classes":           {"agent: {discover: {classes: [all, gpio]}}\n", "stand alone"},
		"exclude":           {"agent: {discover: {exclude: [{}]}}\n", "fits nothing"},
		"discover":          {"agent: {discover: {clases: []}}\n", `did you mean "classes"`},
		"registry endpoint": {"agent: {registries: [{host: a, endpoint: 'b:5000'}]}\n", "http:// or https://"},
		"registry mirror":   {"agent: {registries: [{host: a, mirrors: ['b:5000']}]}\n", "http:// or https://"},
		"registry login":    {"agent: {registries: [{host: a, username: b}]}\n", "belong together"},
		"empty registry":    {"agent: {registries: [{host: a}]}\n", "nothing is said of a"},
		"static pods":       {"agent: {staticPods: x}\n", "agent.staticPods"},
		"image collection":  {"agent: {imageGC: {highPercent: 70}}\n", "lowPercent 80 must be"},
		"log level":         {"log: {level: loud}\n", "must be debug, info, warn or error"},
		"label":             {"agent: {labels: {'a b': c}}\n", "agent.labels"},
		"firmware rate": {
			"agent: {firmware: {hardwareID: x, backend: self, self: {dir: /x}, rate: 10}}\n", "agent.firmware.rate \"10\" must be a quantity between 1Ki and 1Gi",
		},
		"bulk rate":          {"agent: {bulkRate: 10}\n", "agent.bulkRate \"10\" must be a quantity between 1Ki and 1Gi"},
		"idle":               {"agent: {idle: never}\n", "agent.idle \"never\" must be normal or frugal"},
		"short heartbeat":    {"agent: {heartbeat: 1ms}\n", "agent.heartbeat 1ms must be at least 500ms"},
		"links":              {"agent: {links: [grpc, http]}\n", "unknown link \"http\"; known: grpc, mqtt"},
		"links twice":        {"agent: {links: [grpc, grpc]}\n", "listed twice"},
		"broker":             {"agent: {mqtt: {brokers: [broker]}}\n", "agent.mqtt.brokers: \"broker\" must be host:port"},
		"broker's authority": {"server: {mqtt: {caFile: /x}}\n", "server.mqtt.caFile is set and server.mqtt.brokers is not"},
		"MQTT port":          {"server: {mqtt: {listen: 8883}}\n", "server.mqtt.listen \"8883\" must be host:port"},
		"unknown in MQTT":    {"agent: {mqtt: {broker: [a:1]}}\n", "did you mean \"brokers\"?"},
		"advertised address": {"advertiseAddress: pi.local\n", "must be an IP address"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("c.yaml", []byte(tc.file))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
		})
	}
}

func TestLoadMissingFile(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("nodeName: a\nserver: {listen: ':1'}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := Parse("f", data); err != nil && err.Error() == "" {
			t.Error("empty message")
		}
	})
}
