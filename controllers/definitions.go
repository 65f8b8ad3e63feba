package controllers

import (
	"context"
	"fmt"
	"slices"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/shoal-edge/shoal/api"
	"github.com/shoal-edge/shoal/api/definition"
	"github.com/shoal-edge/shoal/store"
)

// definitionLoop accepts the names of definitions, so that their kinds are served, and deletes the objects of those that end.
type definitionLoop struct {
	c    *Controllers
	loop *loop
}

func (c *Controllers) addDefinitions() {
	d := &definitionLoop{c: c}
	d.loop = c.newLoop("definition", 1, d.reconcile) // one by one: two could take the same name
	c.follow(definitions, "", keys(d.loop))
	c.custom.readers = append(c.custom.readers, reader{changed: func(ch *change) {
		if ch.deleted() {
			d.loop.add(key(definitions, "", ch.Item.Key.Resource)) // its definition may wait for the last one
		}
	}})
}

func (l *definitionLoop) reconcile(ctx context.Context, k store.Key) (time.Duration, error) {
	d, ok := store.Get[apiextensionsv1.CustomResourceDefinition](l.c.reader, "", k.Name)
	switch {
	case !ok:
		l.c.addAll(l.loop, definitions) // others may want its names
		return 0, nil
	case d.DeletionTimestamp != nil:
		return l.end(ctx, k, d)
	}
	if !l.settle(d.DeepCopy()) {
		return 0, nil
	}
	renamed := false
	_, err := l.c.client.Modify(ctx, k, "status", func(object api.Object) error {
		d := object.(*apiextensionsv1.CustomResourceDefinition)
		before := d.Status.AcceptedNames
		if !l.settle(d) {
			return errKeep
		}
		renamed = !apiequality.Semantic.DeepEqual(before, d.Status.AcceptedNames)
		return nil
	})
	if renamed && err == nil {
		l.c.addAll(l.loop, definitions) // it may have given up names
	}
	return 0, ignoreGone(err)
}

// settle brings the status to what the spec and the other definitions of the group allow, and reports whether that changed it.
func (l *definitionLoop) settle(d *apiextensionsv1.CustomResourceDefinition) bool {
	before := d.Status.DeepCopy()
	accept(d, l.taken(d), l.c.now())
	approve(d, l.c.now())
	return !apiequality.Semantic.DeepEqual(before, &d.Status)
}

// claimed are the names that others of the same group have.
type claimed struct{ resources, kinds []string }

func (l *definitionLoop) taken(d *apiextensionsv1.CustomResourceDefinition) claimed {
	var n claimed
	for _, other := range store.List[apiextensionsv1.CustomResourceDefinition](l.c.reader, "") {
		if other.Spec.Group != d.Spec.Group || other.Name == d.Name {
			continue
		}
		have := other.Status.AcceptedNames
		n.resources = append(append(n.resources, have.Plural, have.Singular), have.ShortNames...)
		n.kinds = append(n.kinds, have.Kind, have.ListKind)
	}
	return n
}

// accept takes over the names that nobody else has. With the first names that are all free the kind is established, and stays so.
func accept(d *apiextensionsv1.CustomResourceDefinition, others claimed, now time.Time) {
	want, have := d.Spec.Names, &d.Status.AcceptedNames
	condition := apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.NamesAccepted, Status: apiextensionsv1.ConditionTrue, Reason: "NoConflicts", Message: "no conflicts found",
	}
	refuse := func(reason, message string) {
		condition.Status, condition.Reason, condition.Message = apiextensionsv1.ConditionFalse, reason, message
	}
	take := func(reason, name string, into *string, used []string) {
		if name != *into && slices.Contains(used, name) {
			refuse(reason, fmt.Sprintf("%q is already in use", name))
			return
		}
		*into = name
	}
	take("PluralConflict", want.Plural, &have.Plural, others.resources)
	take("SingularConflict", want.Singular, &have.Singular, others.resources)
	if at := slices.IndexFunc(want.ShortNames, func(s string) bool { return slices.Contains(others.resources, s) }); at >= 0 {
		refuse("ShortNamesConflict", fmt.Sprintf("%q is already in use", want.ShortNames[at]))
	} else {
		have.ShortNames = want.ShortNames
	}
	take("KindConflict", want.Kind, &have.Kind, others.kinds)
	take("ListKindConflict", want.ListKind, &have.ListKind, others.kinds)
	have.Categories = want.Categories
	definition.SetCondition(d, condition, now)

	established := apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionFalse, Reason: "NotAccepted", Message: "not all names are accepted",
	}
	if condition.Status == apiextensionsv1.ConditionTrue {
		established.Status, established.Reason = apiextensionsv1.ConditionTrue, "InitialNamesAccepted"
		established.Message = "the initial names have been accepted"
	}
	if !definition.Holds(d, apiextensionsv1.Established) {
		definition.SetCondition(d, established, now)
	}
}

// approve tells whether a kind in a group of the Kubernetes community was approved by it.
func approve(d *apiextensionsv1.CustomResourceDefinition, now time.Time) {
	if !apihelpers.IsProtectedCommunityGroup(d.Spec.Group) {
		return
	}
	state, message := apihelpers.GetAPIApprovalState(d.Annotations)
	c := apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.KubernetesAPIApprovalPolicyConformant, Status: apiextensionsv1.ConditionFalse, Message: message,
	}
	switch state {
	case apihelpers.APIApproved:
		c.Status, c.Reason = apiextensionsv1.ConditionTrue, "ApprovedAnnotation"
	case apihelpers.APIApprovalBypassed:
		c.Reason = "UnapprovedAnnotation"
	case apihelpers.APIApprovalMissing:
		c.Reason = "MissingAnnotation"
	case apihelpers.APIApprovalInvalid:
		c.Reason = "InvalidAnnotation"
	}
	definition.SetCondition(d, c, now)
}

// end deletes all objects of a kind, then lets its definition go.
func (l *definitionLoop) end(ctx context.Context, k store.Key, d *apiextensionsv1.CustomResourceDefinition) (time.Duration, error) {
	if !slices.Contains(d.Finalizers, apiextensionsv1.CustomResourceCleanupFinalizer) {
		return 0, nil
	}
	if !definition.Holds(d, apiextensionsv1.Established) {
		return 0, l.finish(ctx, k, "NeverEstablished", "resource was never established")
	}
	if c := definition.Condition(d, apiextensionsv1.Terminating); c == nil || c.Reason == "InstanceDeletionPending" {
		if err := l.tell(ctx, k, "InstanceDeletionInProgress", "CustomResource deletion is in progress"); err != nil {
			return 0, err
		}
	}
	left, err := l.c.empty(ctx, k.Name, "")
	if err != nil {
		return 0, err
	}
	if len(left) > 0 {
		return lookAgain, nil // the last one to go wakes us
	}
	return 0, l.finish(ctx, k, "InstanceDeletionCompleted", "removed all instances")
}

func (l *definitionLoop) tell(ctx context.Context, k store.Key, reason, message string) error {
	return l.modify(ctx, k, apiextensionsv1.ConditionTrue, reason, message, func(*apiextensionsv1.CustomResourceDefinition) {})
}

func (l *definitionLoop) finish(ctx context.Context, k store.Key, reason, message string) error {
	return l.modify(ctx, k, apiextensionsv1.ConditionFalse, reason, message, func(d *apiextensionsv1.CustomResourceDefinition) {
		d.Finalizers = slices.DeleteFunc(d.Finalizers, func(f string) bool { return f == apiextensionsv1.CustomResourceCleanupFinalizer })
	})
}

func (l *definitionLoop) modify(
	ctx context.Context, k store.Key, status apiextensionsv1.ConditionStatus, reason, message string,
	change func(*apiextensionsv1.CustomResourceDefinition),
) error {
	_, err := l.c.client.Modify(ctx, k, "status", func(object api.Object) error {
		d := object.(*apiextensionsv1.CustomResourceDefinition)
		definition.SetCondition(d, apiextensionsv1.CustomResourceDefinitionCondition{
			Type: apiextensionsv1.Terminating, Status: status, Reason: reason, Message: message,
		}, l.c.now())
		change(d)
		return nil
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
