package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
	"github.com/shoal-edge/shoal/apiserver"
	"github.com/shoal-edge/shoal/cmd/shoal/kube"
	"github.com/shoal-edge/shoal/cmd/shoal/wire"
	"github.com/shoal-edge/shoal/controllers/waves"
)

const (
	rolloutsPath  = "/apis/fleet.shoal.dev/v1/rollouts"
	releasesPath  = "/apis/firmware.shoal.dev/v1/releases"
	firmwaresPath = "/apis/firmware.shoal.dev/v1/devicefirmwares"
	nodesPath     = "/api/v1/nodes"
)

// watchEvery is how often a rollout that is watched is looked at; editTries how often an edit is tried when others write too.
const (
	watchEvery = time.Second
	editTries  = 10
)

func newRollout() *cobra.Command {
	t := &adminCommand{}
	cmd := &cobra.Command{
		Use:   "rollout",
		Short: "Follow and steer rollouts of firmware and apps",
		Long: `Follow and steer rollouts of firmware and apps.

A rollout brings a release to devices and workloads wave by wave. These commands show how far one is and edit its spec; kubectl can do the same.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	t.kubeconfigFlag(cmd.PersistentFlags())
	cmd.AddCommand(
		t.rolloutStatus(), t.rolloutWatch(), t.rolloutPlan(),
		t.rolloutEdit("pause NAME", "Let nobody go on for now", 1, func(s *fleetv1.RolloutSpec, _ []string) error { s.Paused = true; return nil }),
		t.rolloutEdit("resume NAME", "Go on after a pause", 1, func(s *fleetv1.RolloutSpec, _ []string) error { s.Paused = false; return nil }),
		t.rolloutEdit("abort NAME", "End a rollout; devices that have the release keep it, workloads get their former images back", 1,
			func(s *fleetv1.RolloutSpec, _ []string) error { s.Aborted = true; return nil }),
		t.rolloutEdit("retry NAME", "Have the devices that failed or were lost try once more", 1,
			func(s *fleetv1.RolloutSpec, _ []string) error { s.Retries++; return nil }),
		t.rolloutEdit("skip NAME DEVICE|NAMESPACE/WORKLOAD...", "Leave devices or workloads out", 2, func(s *fleetv1.RolloutSpec, devices []string) error {
			s.Skip = union(s.Skip, devices)
			return nil
		}),
		t.rolloutEdit("approve NAME WAVE...", "Let waves begin that wait for it", 2, func(s *fleetv1.RolloutSpec, names []string) error {
			for _, name := range names {
				if !slices.ContainsFunc(s.Waves, func(w fleetv1.Wave) bool { return w.Name == name }) {
					return fmt.Errorf("there is no wave %q", name)
				}
			}
			s.Approved = union(s.Approved, names)
			return nil
		}),
	)
	return cmd
}

func union(have, more []string) []string {
	for _, s := range more {
		if !slices.Contains(have, s) {
			have = append(have, s)
		}
	}
	return have
}

// rolloutEdit makes a command that edits a rollout's spec.
func (t *adminCommand) rolloutEdit(use, short string, least int, edit func(*fleetv1.RolloutSpec, []string) error) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < least || least == 1 && len(args) > 1 {
				return usageError{fmt.Errorf("use: shoal rollout %s", use)}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			path := rolloutsPath + "/" + url.PathEscape(args[0])
			for range editTries {
				var r fleetv1.Rollout
				if err := client.Do(cmd.Context(), http.MethodGet, path, nil, &r); err != nil {
					return err
				}
				if err := edit(&r.Spec, args[1:]); err != nil {
					return err
				}
				if err = client.Do(cmd.Context(), http.MethodPut, path, &r, nil); !apierrors.IsConflict(err) {
					if err == nil {
						_, err = fmt.Fprintf(cmd.OutOrStdout(), "rollout %s edited\n", r.Name)
					}
					return err
				}
			}
			return errors.New("others write the rollout all the time; try again")
		},
	}
	return cmd
}

// fleetView is a rollout with the devices that it is about.
type fleetView struct {
	Rollout fleetv1.Rollout `json:"rollout"`
	Devices []deviceView    `json:"devices"`
}

type deviceView struct {
	Name    string `json:"name"`
	Wave    string `json:"wave"`
	Stage   string `json:"stage"`
	Version string `json:"version"`
	Why     string `json:"why,omitempty"`
}

// lookAt reads a rollout and its devices.
func lookAt(ctx context.Context, client *kube.Client, name string) (*fleetView, error) {
	v := &fleetView{Devices: []deviceView{}}
	if err := client.Do(ctx, http.MethodGet, rolloutsPath+"/"+url.PathEscape(name), nil, &v.Rollout); err != nil {
		return nil, err
	}
	var release firmwarev1.Release
	err := client.Do(ctx, http.MethodGet, releasesPath+"/"+url.PathEscape(v.Rollout.Spec.Release), nil, &release)
	switch {
	case err == nil && len(release.Spec.Artifacts) == 0:
		return v, nil // it is not about devices
	case err != nil && !apierrors.IsNotFound(err):
		return nil, err
	}
	devices, err := devicesOf(ctx, client, &v.Rollout)
	if err != nil {
		return nil, err
	}
	for i := range devices {
		d := &devices[i]
		view := deviceView{Name: d.Name, Stage: waves.Stage(&v.Rollout, d), Version: d.Status.Version}
		if a := d.Spec.Assignment; waves.Mine(&v.Rollout, a) && int(a.Wave) < len(v.Rollout.Spec.Waves) {
			view.Wave = v.Rollout.Spec.Waves[a.Wave].Name
			view.Why = strings.TrimPrefix(d.Status.Reason+": "+d.Status.Message, ": ")
			view.Why = strings.TrimSuffix(view.Why, ": ")
		}
		if view.Wave == "" && d.Status.Backend == "" {
			view.Why = "it reports no way to install firmware"
		}
		v.Devices = append(v.Devices, view)
	}
	return v, nil
}

// devicesOf are the devices that a rollout's selector picks.
func devicesOf(ctx context.Context, client *kube.Client, r *fleetv1.Rollout) ([]waves.Device, error) {
	var (
		nodes     corev1.NodeList
		firmwares firmwarev1.DeviceFirmwareList
		members   []wire.Member
	)
	if err := errors.Join(
		client.Do(ctx, http.MethodGet, nodesPath, nil, &nodes), client.Do(ctx, http.MethodGet, firmwaresPath, nil, &firmwares),
		client.Do(ctx, http.MethodGet, apiserver.MembersPath, nil, &members),
	); err != nil {
		return nil, err
	}
	byName := map[string]*firmwarev1.DeviceFirmware{}
	for i := range firmwares.Items {
		byName[firmwares.Items[i].Name] = &firmwares.Items[i]
	}
	selector := labels.Everything()
	if r.Spec.Selector != nil {
		var err error
		if selector, err = metav1.LabelSelectorAsSelector(r.Spec.Selector); err != nil {
			return nil, err
		}
	}
	var out []waves.Device
	for i := range nodes.Items {
		n := &nodes.Items[i]
		if !selector.Matches(labels.Set(n.Labels)) {
			continue
		}
		d := waves.Device{Name: n.Name, Site: n.Labels[r.Spec.SiteLabel]}
		d.Voter = slices.ContainsFunc(members, func(m wire.Member) bool { return m.Name == n.Name && m.Role != "spare" })
		for _, c := range n.Status.Conditions {
			d.Up = d.Up || c.Type == corev1.NodeReady && c.Status != corev1.ConditionUnknown
		}
		if f := byName[n.Name]; f != nil {
			d.Spec, d.Status = f.Spec, f.Status
		}
		out = append(out, d)
	}
	return out, nil
}

func (t *adminCommand) rolloutStatus() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status NAME", Short: "Show a rollout, its waves and its devices", Args: cobra.ExactArgs(1),
		Example: "  shoal rollout status os-2.4.1\n  shoal rollout status os-2.4.1 -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			v, err := lookAt(cmd.Context(), client, args[0])
			if err != nil {
				return err
			}
			if t.output == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(v)
			}
			if err := printBars(cmd.OutOrStdout(), &v.Rollout); err != nil {
				return err
			}
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 3, ' ', 0)
			if workloads := v.Rollout.Status.Workloads; len(workloads) > 0 {
				_, _ = fmt.Fprintln(table, "\nWORKLOAD\tPODS\tALLOWED\tUPDATED\tFAILED\tWHY")
				for i := range workloads {
					w := &workloads[i]
					_, _ = fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%s\n", w.Namespace+"/"+w.Name, w.Pods, w.Allowed, w.Updated, w.Failed, w.Why)
				}
				if err := table.Flush(); err != nil || len(v.Devices) == 0 {
					return err
				}
			}
			_, _ = fmt.Fprintln(table, "\nDEVICE\tWAVE\tSTAGE\tVERSION\tWHY")
			for _, d := range v.Devices {
				_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", d.Name, d.Wave, d.Stage, d.Version, d.Why)
			}
			return table.Flush()
		},
	}
	t.outputFlag(cmd.Flags())
	return cmd
}

// barWidth is how many characters a wave's bar has.
const barWidth = 30

// printBars shows a bar for each wave: # updated, ! failed or lost, > on the way, . not begun.
func printBars(w io.Writer, r *fleetv1.Rollout) error {
	s := &r.Status
	_, err := fmt.Fprintf(w, "%s: release %s, %s. %s\n", r.Name, r.Spec.Release, s.Phase, s.Why)
	for i := range s.Waves {
		c := &s.Waves[i]
		_, lineErr := fmt.Fprintf(w, "  %-12s [%s] %d/%d updated, %d on their way, %d failed or lost\n",
			c.Name, bar(&c.Counts), c.Updated, c.Devices, c.Updating, c.Failed+c.Lost)
		err = errors.Join(err, lineErr)
	}
	for i := range s.Answers {
		a := &s.Answers[i]
		if a.Wave != s.Wave || a.Generation != r.Generation {
			continue
		}
		word := "waits"
		switch {
		case a.Good:
			word = "good"
		case a.Bad > 0:
			word = "bad"
		}
		_, lineErr := fmt.Fprintf(w, "  gate %-12s %s  %s\n", a.Gate, word, a.Why)
		err = errors.Join(err, lineErr)
	}
	return err
}

func bar(c *fleetv1.Counts) string {
	out := make([]byte, 0, barWidth)
	done := int32(0)
	for _, part := range []struct {
		n    int32
		mark byte
	}{{c.Updated, '#'}, {c.Failed + c.Lost, '!'}, {c.Updating, '>'}, {c.Pending, '.'}} {
		done += part.n
		for c.Devices > 0 && len(out) < int(done*barWidth/c.Devices) {
			out = append(out, part.mark)
		}
	}
	return string(out) + strings.Repeat(" ", barWidth-len(out))
}

func (t *adminCommand) rolloutWatch() *cobra.Command {
	cmd := &cobra.Command{
		Use: "watch NAME", Short: "Watch a rollout with a bar for each wave, until it is over", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			out, lines := cmd.OutOrStdout(), 0
			for before := ""; ; {
				var r fleetv1.Rollout
				if err := client.Do(cmd.Context(), http.MethodGet, rolloutsPath+"/"+url.PathEscape(args[0]), nil, &r); err != nil {
					return err
				}
				var text strings.Builder
				if err := printBars(&text, &r); err != nil {
					return err
				}
				if text.String() != before {
					if lines > 0 {
						_, _ = fmt.Fprintf(out, "\x1b[%dA\x1b[J", lines) // up, and clear what is below
					}
					before, lines = text.String(), strings.Count(text.String(), "\n")
					if _, err := io.WriteString(out, before); err != nil {
						return err
					}
				}
				switch r.Status.Phase {
				case fleetv1.Completed:
					return nil
				case fleetv1.Aborted, fleetv1.Halted, fleetv1.Invalid:
					return fmt.Errorf("rollout %s: %s: %s", r.Name, r.Status.Phase, r.Status.Why)
				}
				select {
				case <-cmd.Context().Done():
					return cmd.Context().Err()
				case <-time.After(watchEvery):
				}
			}
		},
	}
	return cmd
}
