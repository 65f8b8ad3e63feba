package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-edge/shoal/api"
	firmwarev1 "github.com/shoal-edge/shoal/api/firmware/v1"
	fleetv1 "github.com/shoal-edge/shoal/api/fleet/v1"
	"github.com/shoal-edge/shoal/cmd/shoal/kube"
	"github.com/shoal-edge/shoal/controllers/waves"
)

// plan is what a rollout would do.
type plan struct {
	Waves   []waves.Planned   `json:"waves"`
	Refused map[string]string `json:"refused"`
	// BytesBySite is what the devices of each site download at most: each for itself, and nothing of it taken from what runs.
	BytesBySite map[string]int64 `json:"bytesBySite"`
}

func (t *adminCommand) rolloutPlan() *cobra.Command {
	var selector string
	cmd := &cobra.Command{
		Use: "plan RELEASE", Short: "Show what a rollout of a release would do, with the default waves", Args: cobra.ExactArgs(1),
		Example: "  shoal rollout plan os-2.4.1 --selector tier=gateway",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			r := &fleetv1.Rollout{Spec: fleetv1.RolloutSpec{Release: args[0]}}
			if r.Spec.Selector, err = metav1.ParseToLabelSelector(selector); err != nil {
				return usageError{err}
			}
			api.KindFor(r).Default(r)
			var release firmwarev1.Release
			if err := client.Do(cmd.Context(), http.MethodGet, releasesPath+"/"+url.PathEscape(args[0]), nil, &release); err != nil {
				return err
			}
			devices, err := devicesOf(cmd.Context(), client, r)
			if err != nil {
				return err
			}
			workloads, err := workloadsOf(cmd.Context(), client, &release)
			if err != nil {
				return err
			}
			p := makePlan(waves.Input{Rollout: r, Release: &release, Devices: devices, Workloads: workloads})
			if t.output == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(p)
			}
			return p.print(cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&selector, "selector", "", "labels of the devices' nodes, as kubectl's -l")
	t.outputFlag(cmd.Flags())
	return cmd
}

// workloadsOf looks up the workloads of a release.
func workloadsOf(ctx context.Context, client *kube.Client, release *firmwarev1.Release) ([]waves.Workload, error) {
	list := make([]waves.Workload, len(release.Spec.Workloads))
	for i := range list {
		w := &list[i]
		w.Workload = release.Spec.Workloads[i]
		var app any = &appsv1.Deployment{}
		resource := "deployments"
		switch w.Kind {
		case "DaemonSet":
			app, resource = &appsv1.DaemonSet{}, "daemonsets"
		case "StatefulSet":
			app, resource = &appsv1.StatefulSet{}, "statefulsets"
		}
		path := "/apis/apps/v1/namespaces/" + url.PathEscape(w.Namespace) + "/" + resource + "/" + url.PathEscape(w.Name)
		switch err := client.Do(ctx, http.MethodGet, path, nil, app); {
		case apierrors.IsNotFound(err):
			w.Trouble = "there is none"
		case err != nil:
			return nil, err
		default:
			w.Look(waves.AppOf(app))
		}
	}
	return list, nil
}

func makePlan(in waves.Input) *plan {
	p := &plan{BytesBySite: map[string]int64{}}
	p.Waves, p.Refused = waves.Plan(in)
	devices, release := in.Devices, in.Release
	for _, w := range p.Waves {
		for _, name := range w.Devices {
			i := slices.IndexFunc(devices, func(d waves.Device) bool { return d.Name == name })
			if a := release.Spec.ArtifactFor(devices[i].Status.HardwareID); a != nil {
				most := a.Size
				if a.Chunks != nil {
					most = min(most, a.Chunks.Size)
				}
				p.BytesBySite[devices[i].Site] += most
			}
		}
	}
	return p
}

func (p *plan) print(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintln(table, "WAVE\tPODS\tDEVICES\tNAMES (settled when the rollout is made)")
	for _, wave := range p.Waves {
		var pods []string
		for _, name := range slices.Sorted(maps.Keys(wave.Pods)) {
			pods = append(pods, fmt.Sprintf("%s: %d", name, wave.Pods[name]))
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%d\t%s\n", wave.Name, strings.Join(pods, ", "), len(wave.Devices), strings.Join(wave.Devices, " "))
	}
	if len(p.BytesBySite) > 0 {
		_, _ = fmt.Fprintln(table, "\nSITE\tMEGABYTES AT MOST\t")
	}
	for _, site := range slices.Sorted(maps.Keys(p.BytesBySite)) {
		name := site
		if name == "" {
			name = "<none>"
		}
		_, _ = fmt.Fprintf(table, "%s\t%.1f\t\n", name, float64(p.BytesBySite[site])/1e6)
	}
	if len(p.Refused) > 0 {
		_, _ = fmt.Fprintln(table, "\nLEFT OUT\tWHY\t")
		for _, name := range slices.Sorted(maps.Keys(p.Refused)) {
			_, _ = fmt.Fprintf(table, "%s\t%s\t\n", name, p.Refused[name])
		}
	}
	return table.Flush()
}
