package waves

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
)

// Restarting reports whether a restart decides about the device, or has just done so.
func Restarting(s *firmwarev1.DeviceFirmwareStatus) bool {
	switch s.State {
	case firmwarev1.Armed, firmwarev1.Trial, firmwarev1.Probation, firmwarev1.Committed:
		return true
	}
	return false
}

// inUpdate: the device is between two releases, or may be at any moment, whoever has told it so.
func (m *member) inUpdate() bool {
	return Restarting(&m.Status) || m.Status.State == firmwarev1.Staged && hasLeave(m.Device)
}

// down: the device may be unavailable because of an update.
func (m *member) down() bool {
	return m.stage == going || m.stage == lost || m.stage == failed && !m.Up || m.inUpdate()
}

// asks: the device has the release in its other slot and asks for leave to restart.
func (m *member) asks() bool {
	return m.mine && m.Up && m.stage == working && m.Status.State == firmwarev1.Staged && m.Status.Asks != ""
}

// grant gives leave to as many as each site can spare, and to one voter when all others have gone.
func (d *decider) grant() {
	sizes, down := map[string]int{}, map[string]int{}
	for _, m := range d.members {
		sizes[m.Site]++
		if m.down() {
			down[m.Site]++
		}
	}
	for _, m := range d.left {
		sizes[m.Site]++
		if m.down() && m.stage != lost { // a person who skips a lost one does not wait for it
			down[m.Site]++
		}
	}
	spare := func(site string) bool { return down[site] < max(1, amount(d.spec.MaxUnavailable, sizes[site])) }
	for _, m := range d.members {
		if !m.asks() || m.wave > d.decision.Status.Wave || !spare(m.Site) || m.Voter && !d.voterMayGo(m) {
			continue
		}
		d.decision.Grant = append(d.decision.Grant, Grant{Device: m.Name, Nonce: m.Status.Asks})
		m.stage = going
		down[m.Site]++
	}
}

// voterMayGo lets one voter go, after the devices without a vote, and only while the others are enough to decide.
func (d *decider) voterMayGo(m *member) bool {
	s := &d.decision.Status
	for _, other := range slices.Concat(d.members, d.left) {
		switch {
		case other.Device == m.Device:
		case other.Voter && other.down():
			s.Why = fmt.Sprintf("voter %s waits for voter %s", m.Name, other.Name)
			return false
		case !other.Voter && other.mine && other.wave <= m.wave && other.Up && !other.judged() && !slices.Contains(d.left, other):
			return false // voters last
		}
	}
	healthy := 0
	for _, v := range d.Voters {
		if v.Healthy && v.Name != m.Name {
			healthy++
		}
	}
	quorum := len(d.Voters)/2 + 1
	if healthy < quorum && !d.spec.AllowQuorumLoss {
		s.Why = fmt.Sprintf("voter %s cannot restart: %d other voters are healthy, and %d have to be (allowQuorumLoss lets it)", m.Name, healthy, quorum)
		return false
	}
	if m.Leads && healthy >= quorum {
		d.decision.StepAside = true
		s.Why = fmt.Sprintf("voter %s leads, and lets another lead before it restarts", m.Name)
		return false
	}
	return true
}

// add counts one device.
func add(c *fleetv1.Counts, of stage) {
	c.Devices++
	switch of {
	case outside, pending:
		c.Pending++
	case working, going:
		c.Updating++
	case updated:
		c.Updated++
	case failed:
		c.Failed++
	case lost:
		c.Lost++
	}
}

// count fills in the numbers of the status.
func (d *decider) count() {
	s := &d.decision.Status
	s.Counts = fleetv1.Counts{Devices: int32(d.there), Updated: int32(d.there)}
	waves := make([]fleetv1.WaveStatus, len(d.spec.Waves))
	for i := range waves {
		waves[i].Name = d.spec.Waves[i].Name
		if i < len(d.before.Waves) {
			waves[i].StartTime, waves[i].PromotionTime = d.before.Waves[i].StartTime, d.before.Waves[i].PromotionTime
		}
		if i < len(s.Waves) && s.Waves[i].PromotionTime != nil {
			waves[i].PromotionTime = s.Waves[i].PromotionTime
		}
		if int32(i) <= s.Wave && waves[i].StartTime == nil && s.Phase != fleetv1.Aborted {
			waves[i].StartTime = &metav1.Time{Time: d.Now}
		}
	}
	for _, m := range d.members {
		add(&s.Counts, m.stage)
		if m.mine && int(m.wave) < len(waves) {
			add(&waves[m.wave].Counts, m.stage)
		}
	}
	begun, sizes := 0, d.sizes()
	for i := range waves {
		if int32(i) > s.Wave { // as it is planned
			waves[i].Devices = int32(max(0, sizes[i]-max(begun, sizes[i-1])))
			waves[i].Pending = waves[i].Devices
			continue
		}
		begun += int(waves[i].Devices)
	}
	d.countPods(waves)
	s.Waves = waves
}

// promoted notes when a wave had proved itself.
func (d *decider) promoted(wave int32) {
	s := &d.decision.Status
	for len(s.Waves) <= int(wave) {
		s.Waves = append(s.Waves, fleetv1.WaveStatus{})
	}
	if s.Waves[wave].PromotionTime == nil {
		s.Waves[wave].PromotionTime = &metav1.Time{Time: d.Now}
	}
}
