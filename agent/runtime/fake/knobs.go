package fake

import "github.com/shoal-edge/shoal/agent/runtime"

// Exit ends a container with an exit code, as if by itself.
func (r *Runtime) Exit(id string, code int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.containers[id]; c != nil {
		r.exit(c, code)
	}
}

// SetDown makes the runtime stop answering (its containers go on), and answer again.
func (r *Runtime) SetDown(down bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = down
	if down {
		for ch := range r.watchers {
			close(ch)
			delete(r.watchers, ch)
		}
	}
}

// SetUnhealthy makes all containers of that name fail, or pass, their probes.
func (r *Runtime) SetUnhealthy(container string, unhealthy bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unhealthy[container] = unhealthy
}

// SetUsage says what the containers of that name in that pod use; CPU is that of each second.
func (r *Runtime) SetUsage(pod, container string, u runtime.Usage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.usage[pod+"/"+container] = u
}

// Reboot ends every process, as a power cut does: sandboxes are not ready, containers exited with code 255.
func (r *Runtime) Reboot() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.containers {
		r.exit(c, 255)
	}
	for _, s := range r.sandboxes {
		s.Ready, s.IPs = false, nil
	}
}

// Containers returns all containers, running or not.
func (r *Runtime) Containers() []runtime.Container {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]runtime.Container, 0, len(r.containers))
	for _, c := range r.containers {
		all = append(all, c.Container)
	}
	return all
}

// Calls is how often a method was called.
func (r *Runtime) Calls(method string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls[method]
}
