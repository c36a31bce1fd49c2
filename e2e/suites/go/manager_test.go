package e2e

import (
	"context"
	"testing"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

// Greeting is a kind of an operator's own: it wants a ConfigMap with its text.
type Greeting struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              GreetingSpec   `json:"spec"`
	Status            GreetingStatus `json:"status,omitempty"`
}

type GreetingSpec struct {
	Text string `json:"text"`
}

type GreetingStatus struct {
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
}

type GreetingList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Greeting `json:"items"`
}

func (g *Greeting) DeepCopyObject() runtime.Object {
	copied := *g
	g.ObjectMeta.DeepCopyInto(&copied.ObjectMeta)
	return &copied
}

func (l *GreetingList) DeepCopyObject() runtime.Object {
	copied := *l
	copied.Items = nil
	for i := range l.Items {
		copied.Items = append(copied.Items, *l.Items[i].DeepCopyObject().(*Greeting))
	}
	return &copied
}

var greetings = schema.GroupVersion{Group: "go.example.com", Version: "v1"}

func greetingDefinition() *apiextensionsv1.CustomResourceDefinition {
	text, number := apiextensionsv1.JSONSchemaProps{Type: "string"}, apiextensionsv1.JSONSchemaProps{Type: "integer", Format: "int64"}
	object := func(of map[string]apiextensionsv1.JSONSchemaProps) apiextensionsv1.JSONSchemaProps {
		return apiextensionsv1.JSONSchemaProps{Type: "object", Properties: of}
	}
	whole := object(map[string]apiextensionsv1.JSONSchemaProps{
		"spec":   object(map[string]apiextensionsv1.JSONSchemaProps{"text": text}),
		"status": object(map[string]apiextensionsv1.JSONSchemaProps{"observedGeneration": number}),
	})
	return &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "greetings." + greetings.Group},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: greetings.Group, Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "greetings", Singular: "greeting", Kind: "Greeting", ListKind: "GreetingList"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: greetings.Version, Served: true, Storage: true,
				Schema:       &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &whole},
				Subresources: &apiextensionsv1.CustomResourceSubresources{Status: &apiextensionsv1.CustomResourceSubresourceStatus{}},
			}},
		},
	}
}

func greetingWebhook(path string) admissionv1.MutatingWebhook {
	none, fail := admissionv1.SideEffectClassNone, admissionv1.Fail
	return admissionv1.MutatingWebhook{
		Name: "greetings." + greetings.Group, SideEffects: &none, FailurePolicy: &fail, AdmissionReviewVersions: []string{"v1"},
		// Envtest makes a URL of it.
		ClientConfig: admissionv1.WebhookClientConfig{Service: &admissionv1.ServiceReference{Name: "s", Namespace: "default", Path: &path}},
		Rules: []admissionv1.RuleWithOperations{{
			Operations: []admissionv1.OperationType{admissionv1.Create},
			Rule:       admissionv1.Rule{APIGroups: []string{greetings.Group}, APIVersions: []string{"v1"}, Resources: []string{"greetings"}},
		}},
	}
}

func answerGreetings(_ context.Context, request admission.Request) admission.Response {
	if request.Name == "rude" {
		return admission.Denied("nobody is greeted like that")
	}
	return admission.Patched("polite", webhook.JSONPatchOp{Operation: "add", Path: "/spec/text", Value: "good day"})
}

type greeter struct{ client.Client }

func (g greeter) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	var greeting Greeting
	if err := g.Get(ctx, request.NamespacedName, &greeting); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if greeting.DeletionTimestamp != nil {
		controllerutil.RemoveFinalizer(&greeting, "go.example.com/goodbye")
		return reconcile.Result{}, g.Update(ctx, &greeting)
	}
	if controllerutil.AddFinalizer(&greeting, "go.example.com/goodbye") {
		return reconcile.Result{}, g.Update(ctx, &greeting)
	}
	written := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: greeting.Name, Namespace: greeting.Namespace}}
	_, err := controllerutil.CreateOrUpdate(ctx, g.Client, written, func() error {
		written.Data = map[string]string{"text": greeting.Spec.Text}
		return controllerutil.SetControllerReference(&greeting, written, g.Scheme())
	})
	if err != nil {
		return reconcile.Result{}, err
	}
	seen := greeting.DeepCopyObject().(*Greeting)
	seen.Status.ObservedGeneration = greeting.Generation
	return reconcile.Result{}, g.Status().Patch(ctx, seen, client.MergeFrom(&greeting))
}

func TestAnOperatorKeepsItsPromisesAndItsWebhookIsAsked(t *testing.T) {
	w := newWorld(t)
	log.SetLogger(logr.Discard())
	ours := runtime.NewScheme()
	must(t, scheme.AddToScheme(ours))
	ours.AddKnownTypes(greetings, &Greeting{}, &GreetingList{})
	metav1.AddToGroupVersion(ours, greetings)

	yes := true
	environment := &envtest.Environment{
		UseExistingCluster: &yes, Config: w.config, Scheme: ours,
		CRDInstallOptions: envtest.CRDInstallOptions{CRDs: []*apiextensionsv1.CustomResourceDefinition{greetingDefinition()}, CleanUpAfterUse: true},
		WebhookInstallOptions: envtest.WebhookInstallOptions{MutatingWebhooks: []*admissionv1.MutatingWebhookConfiguration{{
			ObjectMeta: metav1.ObjectMeta{Name: "go-greetings"},
			Webhooks:   []admissionv1.MutatingWebhook{greetingWebhook("/greetings")},
		}}},
	}
	config, err := environment.Start()
	must(t, err)
	defer func() { must(t, environment.Stop()) }()
	door := environment.WebhookInstallOptions
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: ours, Metrics: server.Options{BindAddress: "0"},
		LeaderElection: true, LeaderElectionID: "greeter", LeaderElectionNamespace: w.namespace,
		Cache:         cache.Options{DefaultNamespaces: map[string]cache.Config{w.namespace: {}}},
		WebhookServer: webhook.NewServer(webhook.Options{Host: door.LocalServingHost, Port: door.LocalServingPort, CertDir: door.LocalServingCertDir}),
	})
	must(t, err)
	manager.GetWebhookServer().Register("/greetings", &webhook.Admission{Handler: admission.HandlerFunc(answerGreetings)})
	must(t, ctrl.NewControllerManagedBy(manager).For(&Greeting{}).Owns(&corev1.ConfigMap{}).Complete(greeter{manager.GetClient()}))
	running, stop := context.WithCancel(w.ctx)
	ended := make(chan error, 1)
	go func() { ended <- manager.Start(running) }()
	defer func() { stop(); must(t, <-ended) }()

	direct, err := client.New(config, client.Options{Scheme: ours})
	must(t, err)
	named := func(name string) *Greeting {
		return &Greeting{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: w.namespace}}
	}
	hello := named("hello")
	eventually(t, func() string {
		if err := direct.Create(w.ctx, hello); err != nil {
			return err.Error() // the webhook is not listening yet
		}
		return ""
	})
	same(t, "what the webhook made of it", hello.Spec.Text, "good day")
	err = direct.Create(w.ctx, named("rude"))
	refused(t, err, apierrors.IsForbidden, "what the webhook refuses")

	text := func() string {
		var written corev1.ConfigMap
		if err := direct.Get(w.ctx, client.ObjectKeyFromObject(hello), &written); err != nil {
			return err.Error()
		}
		return written.Data["text"]
	}
	says := func(wanted string) {
		t.Helper()
		eventually(t, func() string {
			must(t, direct.Get(w.ctx, client.ObjectKeyFromObject(hello), hello))
			seen := hello.Status.ObservedGeneration == hello.Generation
			return missingUnless(seen && text() == wanted, "observed: %v, text: %s", seen, text())
		})
	}
	says("good day")
	changed := hello.DeepCopyObject().(*Greeting)
	changed.Spec.Text = "good night"
	must(t, direct.Patch(w.ctx, changed, client.MergeFrom(hello)))
	says("good night")
	// What is taken away comes back, as the cache is told of it.
	must(t, direct.Delete(w.ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "hello", Namespace: w.namespace}}))
	says("good night")
	must(t, direct.Delete(w.ctx, hello))
	eventually(t, func() string {
		gone := apierrors.IsNotFound(direct.Get(w.ctx, client.ObjectKeyFromObject(hello), hello))
		return missingUnless(gone && text() != "good night", "gone: %v, text: %s", gone, text())
	})
}
