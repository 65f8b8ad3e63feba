// Command hello is the demonstration app: a web server that shows who answered. Its image holds nothing but this binary.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// version is set at link time.
var version = "v0"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		slog.Error("hello has stopped", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("hello", flag.ContinueOnError)
	listen := flags.String("listen", ":8080", "address to serve on")
	serial := flags.String("serial", "", "path of a serial device, whose last line the page shows")
	greet := flags.Bool("version", false, "print the version and exit")
	echo := flags.Bool("echo", false, "copy standard input to standard output and exit")
	show := flags.String("show", "", "print a file and exit: the image has no cat")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *show != "" {
		data, err := os.ReadFile(*show)
		if err == nil {
			_, err = stdout.Write(data)
		}
		return err
	}
	if *echo {
		_, err := io.Copy(stdout, os.Stdin)
		return err
	}
	if *greet {
		_, err := fmt.Fprintln(stdout, version)
		return err
	}
	if version == "broken" {
		return errors.New("this release does not run")
	}
	log := slog.New(slog.NewTextHandler(stdout, nil))
	s := &server{log: log, started: time.Now()}
	if *serial != "" {
		f, err := os.OpenFile(*serial, os.O_RDWR|syscall.O_NOCTTY, 0)
		if err != nil {
			return fmt.Errorf("open serial device: %w", err)
		}
		go s.read(f)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", *listen)
	if err != nil {
		return err
	}
	web := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() {
		limit, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = web.Shutdown(limit)
	})
	log.Info("hello serves", "version", version, "listen", listener.Addr().String())
	if err := web.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	log.Info("hello ends")
	return nil
}

type server struct {
	log     *slog.Logger
	started time.Time
	line    atomic.Pointer[string]
}

// read keeps the last full line that came from the serial device.
func (s *server) read(f io.Reader) {
	var pending string
	buffer := make([]byte, 256)
	for {
		n, err := f.Read(buffer)
		if err != nil {
			s.log.Error("The serial device has failed", "error", err)
			return
		}
		lines := strings.Split(pending+string(buffer[:n]), "\n")
		pending = lines[len(lines)-1]
		if len(pending) > 1024 {
			pending = ""
		}
		if len(lines) > 1 {
			last := lines[len(lines)-2]
			if s.line.Swap(&last) == nil {
				s.log.Info("The serial device speaks", "line", last)
			}
		}
	}
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	ok := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") }
	mux.HandleFunc("GET /healthz", ok)
	mux.HandleFunc("GET /readyz", ok)
	mux.HandleFunc("GET /{$}", s.page)
	return mux
}

// page is lines of key=value: a person can read it and a test can check it.
func (s *server) page(w http.ResponseWriter, r *http.Request) {
	host, _ := os.Hostname()
	s.log.Info("request", "from", r.RemoteAddr, "path", r.URL.Path)
	_, _ = fmt.Fprintf(w, "hello from shoal\nversion=%s\nhostname=%s\nuptime=%s\n", version, host, time.Since(s.started).Round(time.Second))
	if line := s.line.Load(); line != nil {
		_, _ = fmt.Fprintf(w, "serial=%s\n", *line)
	}
	for _, e := range os.Environ() {
		if strings.HasPrefix(e, "HELLO_") || strings.HasPrefix(e, "NODE_NAME=") || strings.HasPrefix(e, "POD_IP=") {
			_, _ = fmt.Fprintln(w, e)
		}
	}
}
