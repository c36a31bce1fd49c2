// Package e2e holds OneX to what Go programs expect of a Kubernetes: client-go and controller-runtime as they are
// published, against the platform that KUBECONFIG names. Every test has a namespace of its own.
package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Patience is how long anything may take on a busy machine before it counts as never.
const patience = 60 * time.Second

var configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}

// World is the platform as one test sees it.
type world struct {
	*testing.T
	ctx       context.Context
	config    *rest.Config
	namespace string
	typed     kubernetes.Interface
	dynamic   dynamic.Interface
	metadata  metadata.Interface
}

// NewWorld makes a namespace, which goes with the test.
func newWorld(t *testing.T) *world {
	config, err := clientcmd.BuildConfigFromFlags("", envOr("KUBECONFIG", ""))
	must(t, err)
	config.QPS, config.Burst = -1, -1
	w := worldBy(t, config)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "go-"}}
	namespace, err = w.typed.CoreV1().Namespaces().Create(w.ctx, namespace, metav1.CreateOptions{})
	must(t, err)
	w.namespace = namespace.Name
	// What every namespace has is there a moment later; tests that count want it before they begin.
	eventually(t, func() string {
		_, err := w.typed.CoreV1().ConfigMaps(w.namespace).Get(w.ctx, "kube-root-ca.crt", metav1.GetOptions{})
		return missingUnless(err == nil, "%v", err)
	})
	t.Cleanup(func() {
		must(t, w.typed.CoreV1().Namespaces().Delete(context.Background(), w.namespace, metav1.DeleteOptions{}))
	})
	return w
}

// WorldBy is the platform through config: the typed client speaks protobuf, the others what they always speak.
func worldBy(t *testing.T, config *rest.Config) *world {
	protobuf := rest.CopyConfig(config)
	protobuf.ContentType = runtime.ContentTypeProtobuf
	protobuf.AcceptContentTypes = runtime.ContentTypeProtobuf
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	t.Cleanup(cancel)
	return &world{
		T: t, ctx: ctx, config: config,
		typed:    kubernetes.NewForConfigOrDie(protobuf),
		dynamic:  dynamic.NewForConfigOrDie(config),
		metadata: metadata.NewForConfigOrDie(config),
	}
}

func (w *world) configMap(name string, data ...string) *corev1.ConfigMap {
	made := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: w.namespace}, Data: map[string]string{}}
	for i := 0; i+1 < len(data); i += 2 {
		made.Data[data[i]] = data[i+1]
	}
	return made
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
}

// Refused expects err to be a Status of that kind.
func refused(t testing.TB, err error, is func(error) bool, what string) {
	t.Helper()
	if !is(err) {
		t.Fatalf("%s: got %v (%s)", what, err, apierrors.ReasonForError(err))
	}
}

func same[V comparable](t testing.TB, what string, got, want V) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

// Eventually asks until there is nothing missing.
func eventually(t testing.TB, missing func() string) {
	t.Helper()
	last, end := "", time.Now().Add(patience)
	for time.Now().Before(end) {
		if last = missing(); last == "" {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("after %v: %s", patience, last)
}

func missingUnless(ok bool, format string, values ...any) string {
	if ok {
		return ""
	}
	return fmt.Sprintf(format, values...)
}
