package e2e

import (
	"os"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	applyappsv1 "k8s.io/client-go/applyconfigurations/apps/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	applymetav1 "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/pager"
	"k8s.io/client-go/util/retry"
)

func envOr(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func TestTheTypedClientReadsBackWhatItWrote(t *testing.T) {
	w := newWorld(t)
	maps := w.typed.CoreV1().ConfigMaps(w.namespace)
	made, err := maps.Create(w.ctx, w.configMap("a", "k", "v"), metav1.CreateOptions{})
	must(t, err)
	_, err = maps.Create(w.ctx, w.configMap("a"), metav1.CreateOptions{})
	refused(t, err, apierrors.IsAlreadyExists, "a second one")

	stale := made.DeepCopy()
	made.BinaryData = map[string][]byte{"b": {0, 255, 10}}
	made, err = maps.Update(w.ctx, made, metav1.UpdateOptions{})
	must(t, err)
	_, err = maps.Update(w.ctx, stale, metav1.UpdateOptions{})
	refused(t, err, apierrors.IsConflict, "an update of what was seen before")
	must(t, retry.RetryOnConflict(retry.DefaultRetry, func() error {
		current, err := maps.Get(w.ctx, "a", metav1.GetOptions{})
		must(t, err)
		current.Labels = map[string]string{"x": "y"}
		_, err = maps.Update(w.ctx, current, metav1.UpdateOptions{})
		return err
	}))
	found, err := maps.List(w.ctx, metav1.ListOptions{LabelSelector: "x in (y)"})
	must(t, err)
	same(t, "found by label", len(found.Items), 1)
	same(t, "binary data", string(found.Items[0].BinaryData["b"]), "\x00\xff\n")

	patched, err := maps.Patch(w.ctx, "a", types.JSONPatchType, []byte(`[{"op":"add","path":"/data/k","value":"w"}]`), metav1.PatchOptions{})
	must(t, err)
	same(t, "patched", patched.Data["k"], "w")
	wrong := types.UID("another")
	err = maps.Delete(w.ctx, "a", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &wrong}})
	refused(t, err, apierrors.IsConflict, "a deletion of another object of that name")
	must(t, maps.DeleteCollection(w.ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "x=y"}))
	_, err = maps.Get(w.ctx, "a", metav1.GetOptions{})
	refused(t, err, apierrors.IsNotFound, "what is deleted")

	_, err = maps.Create(w.ctx, w.configMap("Bad_Name"), metav1.CreateOptions{})
	refused(t, err, apierrors.IsInvalid, "a bad name")
	causes := err.(apierrors.APIStatus).Status().Details.Causes
	same(t, "field", causes[0].Field, "metadata.name")
}

func TestTheDynamicAndTheMetadataClientSeeTheSameObjects(t *testing.T) {
	w := newWorld(t)
	deployment := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": "d"},
		"spec": map[string]any{
			"replicas": int64(0),
			"selector": map[string]any{"matchLabels": map[string]any{"a": "b"}},
			"template": map[string]any{
				"metadata": map[string]any{"labels": map[string]any{"a": "b"}},
				"spec":     map[string]any{"containers": []any{map[string]any{"name": "c", "image": "i"}}},
			},
		},
	}}
	resource := schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	made, err := w.dynamic.Resource(resource).Namespace(w.namespace).Create(w.ctx, deployment, metav1.CreateOptions{})
	must(t, err)
	typed, err := w.typed.AppsV1().Deployments(w.namespace).Get(w.ctx, "d", metav1.GetOptions{})
	must(t, err)
	same(t, "default strategy", typed.Spec.Strategy.Type, appsv1.RollingUpdateDeploymentStrategyType)
	same(t, "uid", typed.UID, made.GetUID())

	alone := w.metadata.Resource(resource).Namespace(w.namespace)
	metadata, err := alone.Get(w.ctx, "d", metav1.GetOptions{})
	must(t, err)
	same(t, "revision", metadata.ResourceVersion, made.GetResourceVersion())
	_, err = alone.Patch(w.ctx, "d", types.MergePatchType, []byte(`{"metadata":{"labels":{"seen":"yes"}}}`), metav1.PatchOptions{})
	must(t, err)
	list, err := alone.List(w.ctx, metav1.ListOptions{LabelSelector: "seen"})
	must(t, err)
	same(t, "found by the metadata client", len(list.Items), 1)

	scale, err := w.typed.AppsV1().Deployments(w.namespace).GetScale(w.ctx, "d", metav1.GetOptions{})
	must(t, err)
	scale.Spec.Replicas = 3
	_, err = w.typed.AppsV1().Deployments(w.namespace).UpdateScale(w.ctx, "d", scale, metav1.UpdateOptions{})
	must(t, err)
	seen, err := w.dynamic.Resource(resource).Namespace(w.namespace).Get(w.ctx, "d", metav1.GetOptions{})
	must(t, err)
	replicas, _, err := unstructured.NestedInt64(seen.Object, "spec", "replicas")
	must(t, err)
	same(t, "scaled", replicas, 3)
	must(t, alone.Delete(w.ctx, "d", metav1.DeleteOptions{}))
}

func TestAPagerSeesOneMomentHoweverLongItTakes(t *testing.T) {
	w := newWorld(t)
	maps := w.typed.CoreV1().ConfigMaps(w.namespace)
	must(t, eachOf(30, func(i int) error {
		_, err := maps.Create(w.ctx, w.configMap(numbered("m", i)), metav1.CreateOptions{})
		return err
	}))
	pages := 0
	page := func(options metav1.ListOptions) (*corev1.ConfigMapList, error) {
		pages++
		list, err := maps.List(w.ctx, options)
		if pages == 1 && err == nil {
			must(t, maps.Delete(w.ctx, numbered("m", 29), metav1.DeleteOptions{}))
		}
		return list, err
	}
	p := pager.New(pager.SimplePageFunc(func(options metav1.ListOptions) (object, error) { return page(options) }))
	p.PageSize, p.PageBufferSize = 7, 0
	list, _, err := p.List(w.ctx, metav1.ListOptions{})
	must(t, err)
	items, err := meta.ExtractList(list)
	must(t, err)
	// The authority of the cluster is in every namespace.
	same(t, "items", len(items), 31)
	same(t, "pages", pages, 5)
}

func TestEveryResourceThatDiscoveryNamesCanBeMappedAndListed(t *testing.T) {
	w := newWorld(t)
	discovery := memory.NewMemCacheClient(w.typed.Discovery())
	lists, err := discovery.ServerPreferredResources()
	must(t, err)
	mapper := restmapper.NewShortcutExpander(restmapper.NewDeferredDiscoveryRESTMapper(discovery), discovery, nil)
	listed := 0
	for _, list := range lists {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		must(t, err)
		for _, found := range list.APIResources {
			mapping, err := mapper.RESTMapping(schema.GroupKind{Group: version.Group, Kind: found.Kind}, version.Version)
			must(t, err)
			if !contains(found.Verbs, "list") {
				continue
			}
			same(t, "resource of "+found.Kind, mapping.Resource.Resource, found.Name)
			whole, err := w.dynamic.Resource(mapping.Resource).List(w.ctx, metav1.ListOptions{})
			must(t, err)
			same(t, "kind of the list", whole.GetKind(), found.Kind+"List")
			_, err = w.metadata.Resource(mapping.Resource).List(w.ctx, metav1.ListOptions{})
			must(t, err)
			listed++
		}
	}
	if listed < 40 {
		t.Fatalf("only %d resources can be listed", listed)
	}
	short, err := mapper.KindFor(schema.GroupVersionResource{Resource: "ms"})
	must(t, err)
	same(t, "ms", short.Kind, "MinerSet")
	_, err = discovery.OpenAPISchema()
	must(t, err)
	paths, err := discovery.OpenAPIV3().Paths()
	must(t, err)
	schemas, err := paths["apis/apps.onex.io/v1beta1"].Schema("application/json")
	must(t, err)
	if len(schemas) == 0 {
		t.Fatal("OpenAPI v3 says nothing of our own kinds")
	}
}

func TestManagersOfServerSideApplyShareAnObject(t *testing.T) {
	w := newWorld(t)
	maps := w.typed.CoreV1().ConfigMaps(w.namespace)
	ours := applycorev1.ConfigMap("m", w.namespace).WithData(map[string]string{"ours": "1", "both": "1"})
	_, err := maps.Apply(w.ctx, ours, metav1.ApplyOptions{FieldManager: "us"})
	must(t, err)
	theirs := applycorev1.ConfigMap("m", w.namespace).WithData(map[string]string{"theirs": "1", "both": "2"})
	_, err = maps.Apply(w.ctx, theirs, metav1.ApplyOptions{FieldManager: "them"})
	refused(t, err, apierrors.IsConflict, "taking what is ours")
	same(t, "field", err.(apierrors.APIStatus).Status().Details.Causes[0].Field, ".data.both")
	_, err = maps.Apply(w.ctx, theirs, metav1.ApplyOptions{FieldManager: "them", Force: true})
	must(t, err)
	merged, err := maps.Apply(w.ctx, applycorev1.ConfigMap("m", w.namespace), metav1.ApplyOptions{FieldManager: "us"})
	must(t, err)
	same(t, "what only we had", merged.Data["ours"], "")
	same(t, "what they took", merged.Data["both"], "2")
	extracted, err := applycorev1.ExtractConfigMap(merged, "them")
	must(t, err)
	same(t, "what is theirs", len(extracted.Data), 2)

	container := func(name, image string) *applycorev1.ContainerApplyConfiguration {
		return applycorev1.Container().WithName(name).WithImage(image)
	}
	deployment := func(containers ...*applycorev1.ContainerApplyConfiguration) *applyappsv1.DeploymentApplyConfiguration {
		labels := map[string]string{"a": "b"}
		return applyappsv1.Deployment("d", w.namespace).WithSpec(applyappsv1.DeploymentSpec().WithReplicas(0).
			WithSelector(applymetav1.LabelSelector().WithMatchLabels(labels)).
			WithTemplate(applycorev1.PodTemplateSpec().WithLabels(labels).WithSpec(applycorev1.PodSpec().WithContainers(containers...))))
	}
	deployments := w.typed.AppsV1().Deployments(w.namespace)
	_, err = deployments.Apply(w.ctx, deployment(container("a", "1")), metav1.ApplyOptions{FieldManager: "us"})
	must(t, err)
	both, err := deployments.Apply(w.ctx, deployment(container("b", "1")), metav1.ApplyOptions{FieldManager: "them"})
	must(t, err)
	same(t, "containers of both", len(both.Spec.Template.Spec.Containers), 2)
	both, err = deployments.Apply(w.ctx, deployment(container("c", "1")), metav1.ApplyOptions{FieldManager: "them"})
	must(t, err)
	names := ""
	for _, container := range both.Spec.Template.Spec.Containers {
		names += container.Name
	}
	same(t, "containers", names, "ac")
}

func TestATokenLetsItsAccountInAsFarAsItIsBound(t *testing.T) {
	w := newWorld(t)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot"}}
	accounts := w.typed.CoreV1().ServiceAccounts(w.namespace)
	_, err := accounts.Create(w.ctx, account, metav1.CreateOptions{})
	must(t, err)
	token, err := accounts.CreateToken(w.ctx, "robot", &authv1.TokenRequest{}, metav1.CreateOptions{})
	must(t, err)
	config := rest.AnonymousClientConfig(w.config)
	config.BearerToken = token.Status.Token
	robot := worldBy(t, config)
	who, err := robot.typed.AuthenticationV1().SelfSubjectReviews().Create(w.ctx, &authv1.SelfSubjectReview{}, metav1.CreateOptions{})
	must(t, err)
	same(t, "who it is", who.Status.UserInfo.Username, "system:serviceaccount:"+w.namespace+":robot")
	_, err = robot.typed.CoreV1().ConfigMaps(w.namespace).List(w.ctx, metav1.ListOptions{})
	refused(t, err, apierrors.IsForbidden, "before it may")

	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "robot"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Name: "robot", Namespace: w.namespace}},
	}
	_, err = w.typed.RbacV1().RoleBindings(w.namespace).Create(w.ctx, binding, metav1.CreateOptions{})
	must(t, err)
	_, err = robot.typed.CoreV1().ConfigMaps(w.namespace).List(w.ctx, metav1.ListOptions{})
	must(t, err)
	_, err = robot.typed.CoreV1().ConfigMaps(w.namespace).Create(w.ctx, w.configMap("x"), metav1.CreateOptions{})
	refused(t, err, apierrors.IsForbidden, "writing, being a viewer")

	reviewed, err := w.typed.AuthenticationV1().TokenReviews().Create(w.ctx,
		&authv1.TokenReview{Spec: authv1.TokenReviewSpec{Token: token.Status.Token}}, metav1.CreateOptions{})
	must(t, err)
	same(t, "authenticated", reviewed.Status.Authenticated, true)
	must(t, accounts.Delete(w.ctx, "robot", metav1.DeleteOptions{}))
	_, err = robot.typed.CoreV1().ConfigMaps(w.namespace).List(w.ctx, metav1.ListOptions{})
	refused(t, err, apierrors.IsUnauthorized, "after the account is gone")
}

func TestAnEvictionWaitsForTheBudget(t *testing.T) {
	w := newWorld(t)
	labels := map[string]string{"app": "x"}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Labels: labels},
		Spec: corev1.PodSpec{
			NodeName:                      "elsewhere", // nobody reports how it is but this test
			TerminationGracePeriodSeconds: new(int64),
			Containers: []corev1.Container{{Name: "c", Image: "nothing-runs-this", Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1m")},
			}}},
		},
	}
	pods := w.typed.CoreV1().Pods(w.namespace)
	made, err := pods.Create(w.ctx, pod, metav1.CreateOptions{})
	must(t, err)
	same(t, "cpu", made.Spec.Containers[0].Resources.Requests.Cpu().String(), "1m")
	one := intstr.FromInt32(1)
	budget := &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: "b"},
		Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: &one, Selector: &metav1.LabelSelector{MatchLabels: labels}},
	}
	budgets := w.typed.PolicyV1().PodDisruptionBudgets(w.namespace)
	budget, err = budgets.Create(w.ctx, budget, metav1.CreateOptions{})
	must(t, err)
	budget.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: budget.Generation, ExpectedPods: 1, DesiredHealthy: 1, CurrentHealthy: 1}
	_, err = budgets.UpdateStatus(w.ctx, budget, metav1.UpdateOptions{})
	must(t, err)
	// A Pod that does not run yet may always go.
	made.Status.Phase = corev1.PodRunning
	made.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	_, err = pods.UpdateStatus(w.ctx, made, metav1.UpdateOptions{})
	must(t, err)
	err = pods.EvictV1(w.ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: w.namespace}})
	refused(t, err, apierrors.IsTooManyRequests, "an eviction against the budget")
	must(t, budgets.Delete(w.ctx, "b", metav1.DeleteOptions{}))
	must(t, pods.EvictV1(w.ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: w.namespace}}))
	eventually(t, func() string {
		_, err := pods.Get(w.ctx, "p", metav1.GetOptions{})
		return missingUnless(apierrors.IsNotFound(err), "the evicted Pod is still there: %v", err)
	})
}
