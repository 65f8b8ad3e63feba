package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/rand"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/utils/ptr"

	"github.com/shoal-edge/shoal/apiserver/access"
	"github.com/shoal-edge/shoal/store"
)

// Where a pod finds how to speak to the API.
const (
	defaultAccount   = "default"
	accountMount     = "/var/run/secrets/kubernetes.io/serviceaccount"
	accountVolume    = "kube-api-access-"
	podTokenLife     = 3607 // seconds: upstream's number
	mountableSecrets = "kubernetes.io/enforce-mountable-secrets"
)

// accountWait is how long a user's request waits for the default account of a namespace that is just being filled.
const (
	accountWait = time.Second
	accountPoll = 25 * time.Millisecond
)

// serviceAccounts gives every new pod a service account that exists, its image pull secrets, and the files by which it speaks to the
// API, unless pod or account say that it does not want them.
func serviceAccounts() Plugin {
	return Plugin{Name: "ServiceAccount", Admit: created(func(ctx context.Context, a *store.Admission, pod *corev1.Pod) error {
		if pod.Spec.ServiceAccountName == "" {
			pod.Spec.ServiceAccountName, pod.Spec.DeprecatedServiceAccount = defaultAccount, defaultAccount
		}
		account, err := accountOf(ctx, a.Reader, pod)
		if err != nil {
			return err
		}
		if wantsToken(account, pod) {
			mountToken(pod)
		}
		if len(pod.Spec.ImagePullSecrets) == 0 {
			pod.Spec.ImagePullSecrets = slices.Clone(account.ImagePullSecrets)
		}
		if enforced, _ := strconv.ParseBool(account.Annotations[mountableSecrets]); enforced {
			return onlyMountable(account, pod)
		}
		return nil
	})}
}

// accountOf looks the account up. That of a new namespace is made by a controller a moment after the namespace: users wait for it,
// controllers try again anyway.
func accountOf(ctx context.Context, reader store.Reader, pod *corev1.Pod) (*corev1.ServiceAccount, error) {
	name := pod.Spec.ServiceAccountName
	deadline := time.Now().Add(accountWait)
	for {
		account, ok := store.Get[corev1.ServiceAccount](reader, pod.Namespace, name)
		if ok {
			return account, nil
		}
		if name != defaultAccount || access.FromContext(ctx) == nil || !time.Now().Before(deadline) {
			return nil, fmt.Errorf("error looking up service account %s/%s: %w", pod.Namespace, name,
				errors.New(apierrors.NewNotFound(corev1.Resource("serviceaccount"), name).Error()))
		}
		select {
		case <-time.After(accountPoll):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func wantsToken(account *corev1.ServiceAccount, pod *corev1.Pod) bool {
	return ptr.Deref(pod.Spec.AutomountServiceAccountToken, ptr.Deref(account.AutomountServiceAccountToken, true))
}

// mountToken adds the volume with token, CA and namespace, and mounts it in every container that has nothing there.
func mountToken(pod *corev1.Pod) {
	at := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return strings.HasPrefix(v.Name, accountVolume) })
	name := accountVolume + rand.String(5)
	if at >= 0 {
		name = pod.Spec.Volumes[at].Name
	}
	needed := false
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			c := &containers[i]
			if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == accountMount }) {
				c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: name, ReadOnly: true, MountPath: accountMount})
				needed = true
			}
		}
	}
	if at < 0 && needed {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			Projected: &corev1.ProjectedVolumeSource{DefaultMode: ptr.To(corev1.ProjectedVolumeSourceDefaultMode), Sources: tokenSources()},
		}})
	}
}

func tokenSources() []corev1.VolumeProjection {
	return []corev1.VolumeProjection{
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr.To[int64](podTokenLife)}},
		{ConfigMap: &corev1.ConfigMapProjection{
			LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"},
			Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
		}},
		{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
			{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}},
		}}},
	}
}

// onlyMountable refuses secrets that the account does not name, for accounts that ask for that.
func onlyMountable(account *corev1.ServiceAccount, pod *corev1.Pod) error {
	allowed := map[string]bool{}
	for _, s := range account.Secrets {
		allowed[s.Name] = true
	}
	for _, s := range account.ImagePullSecrets {
		allowed[s.Name] = true
	}
	var refused string
	podutil.VisitPodSecretNames(pod, func(name string) bool {
		if !allowed[name] {
			refused = name
		}
		return refused == ""
	})
	if refused == "" {
		return nil
	}
	return fmt.Errorf("secret %q is not allowed because service account %s does not reference that secret", refused, account.Name)
}
