package webhooks

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/shoal-edge/shoal/api/custom"
	"github.com/shoal-edge/shoal/store"
)

const (
	// convertTimeout is how long a conversion may take, which nothing configures.
	convertTimeout = 30 * time.Second
	// maxConverted bounds what is kept of answers: every watch of a kind is told the same.
	maxConverted = 4 << 20
)

// Converter calls the conversion webhooks of definitions. It is safe for concurrent use.
type Converter struct {
	caller *Caller
	reader func() store.Reader
	known  converted
}

// NewConverter returns a converter. The reader is where Services are found.
func (c *Caller) NewConverter(reader func() store.Reader) *Converter {
	return &Converter{caller: c, reader: reader}
}

var errConversion = errors.New("webhook response is invalid")

// Convert implements custom.Converter.
func (c *Converter) Convert(d *custom.Definition, to string, objects []map[string]any) ([]map[string]any, error) {
	texts, keys := make([][]byte, len(objects)), make([]conversionKey, len(objects))
	var missing []runtime.RawExtension
	var places []int
	for i, o := range objects {
		text, err := json.Marshal(o)
		if err != nil {
			return nil, err
		}
		keys[i] = keyOf(d, to, text)
		if texts[i] = c.known.get(keys[i]); texts[i] == nil {
			missing, places = append(missing, runtime.RawExtension{Raw: text}), append(places, i)
		}
	}
	if len(missing) > 0 {
		got, err := c.ask(d.Conversion(), to, missing)
		if err != nil {
			return nil, err
		}
		for n, i := range places {
			texts[i] = got[n].Raw
			c.known.put(keys[i], texts[i])
		}
	}
	made := make([]map[string]any, len(objects))
	for i, text := range texts {
		if err := utiljson.Unmarshal(text, &made[i]); err != nil {
			return nil, fmt.Errorf("%w: %w", errConversion, err)
		}
	}
	return made, nil
}

// ask sends objects to the webhook.
func (c *Converter) ask(hook *apiextensionsv1.WebhookConversion, to string, objects []runtime.RawExtension) ([]runtime.RawExtension, error) {
	version := "v1"
	if i := slices.IndexFunc(hook.ConversionReviewVersions, func(v string) bool { return v == "v1" || v == "v1beta1" }); i >= 0 {
		version = hook.ConversionReviewVersions[i]
	}
	question := apiextensionsv1.ConversionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: apiextensionsv1.GroupName + "/" + version, Kind: "ConversionReview"},
		Request:  &apiextensionsv1.ConversionRequest{UID: types.UID(uuid.NewString()), DesiredAPIVersion: to, Objects: objects},
	}
	ctx, cancel := context.WithTimeout(context.Background(), convertTimeout)
	defer cancel()
	at, client, err := c.caller.client(c.reader(), clientConfig(hook.ClientConfig))
	if err != nil {
		return nil, err
	}
	var answer apiextensionsv1.ConversionReview
	if err := post(ctx, client, at, convertTimeout, &question, &answer); err != nil {
		return nil, err
	}
	switch got := answer.Response; {
	case got == nil:
		return nil, fmt.Errorf("%w: it has no response", errConversion)
	case answer.GroupVersionKind() != question.GroupVersionKind():
		return nil, fmt.Errorf("%w: expected %s, got %s", errConversion, question.GroupVersionKind(), answer.GroupVersionKind())
	case got.UID != question.Request.UID:
		return nil, fmt.Errorf("%w: expected response.uid=%q, got %q", errConversion, question.Request.UID, got.UID)
	case got.Result.Status != metav1.StatusSuccess && got.Result.Message != "":
		return nil, errors.New(got.Result.Message)
	case got.Result.Status != metav1.StatusSuccess:
		return nil, fmt.Errorf("%w: response.result.status was %q, not %q", errConversion, got.Result.Status, metav1.StatusSuccess)
	case len(got.ConvertedObjects) != len(objects):
		return nil, fmt.Errorf("%w: it has %d objects, not %d", errConversion, len(got.ConvertedObjects), len(objects))
	default:
		return got.ConvertedObjects, nil
	}
}

// clientConfig is the way to a conversion webhook as that to one of admission.
func clientConfig(c *apiextensionsv1.WebhookClientConfig) *admissionregistrationv1.WebhookClientConfig {
	to := &admissionregistrationv1.WebhookClientConfig{URL: c.URL, CABundle: c.CABundle}
	if s := c.Service; s != nil {
		to.Service = &admissionregistrationv1.ServiceReference{Namespace: s.Namespace, Name: s.Name, Path: s.Path, Port: s.Port}
	}
	return to
}

// conversionKey is a hash over an object, what it is converted to, and the definition that says how.
type conversionKey [sha256.Size]byte

func keyOf(d *custom.Definition, to string, text []byte) conversionKey {
	return sha256.Sum256(bytes.Join([][]byte{[]byte(d.Storage.Identity()), []byte(to), text}, []byte{0}))
}

// converted keeps answers. When there are too many it begins anew.
type converted struct {
	mu    sync.Mutex
	by    map[conversionKey][]byte
	bytes int
}

func (c *converted) get(key conversionKey) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.by[key]
}

func (c *converted) put(key conversionKey, text []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil || c.bytes+len(text) > maxConverted {
		c.by, c.bytes = map[conversionKey][]byte{}, 0
	}
	if _, ok := c.by[key]; !ok {
		c.by[key] = text
		c.bytes += len(text) + len(key)
	}
}
