package e2e

import (
	"context"
	"fmt"
	"math/rand"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
	"k8s.io/client-go/util/connrotation"
)

type object = runtime.Object

func numbered(prefix string, i int) string { return fmt.Sprintf("%s-%02d", prefix, i) }

func eachOf(n int, do func(int) error) error {
	for i := range n {
		if err := do(i); err != nil {
			return err
		}
	}
	return nil
}

func contains(all []string, wanted string) bool {
	for _, one := range all {
		if one == wanted {
			return true
		}
	}
	return false
}

func revision(t testing.TB, of any) uint64 {
	accessor, err := meta.Accessor(of)
	must(t, err)
	number, err := strconv.ParseUint(accessor.GetResourceVersion(), 10, 64)
	must(t, err)
	return number
}

// Follower is what somebody believes who is told of changes only.
type follower struct {
	sync.Mutex
	told    map[string]uint64
	mistake string
	store   cache.Store
}

func follow(t *testing.T, informer cache.SharedIndexInformer) *follower {
	f := &follower{told: map[string]uint64{}, store: informer.GetStore()}
	key := func(of any) string {
		key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(of)
		must(t, err)
		return key
	}
	wrong := func(format string, values ...any) {
		if f.mistake == "" {
			f.mistake = fmt.Sprintf(format, values...)
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(of any) {
			f.Lock()
			defer f.Unlock()
			if _, there := f.told[key(of)]; there {
				wrong("%s was added twice", key(of))
			}
			f.told[key(of)] = revision(t, of)
		},
		UpdateFunc: func(old, of any) {
			f.Lock()
			defer f.Unlock()
			if f.told[key(of)] != revision(t, old) || revision(t, old) > revision(t, of) {
				wrong("%s was at %d, and went from %d to %d", key(of), f.told[key(of)], revision(t, old), revision(t, of))
			}
			f.told[key(of)] = revision(t, of)
		},
		DeleteFunc: func(of any) {
			f.Lock()
			defer f.Unlock()
			delete(f.told, key(of))
		},
	})
	must(t, err)
	return f
}

// Differs says where the follower's world differs from what is.
func (f *follower) differs(t *testing.T, name string, is map[string]uint64) string {
	f.Lock()
	defer f.Unlock()
	same(t, name, f.mistake, "")
	stored := map[string]uint64{}
	for _, of := range f.store.List() {
		key, err := cache.MetaNamespaceKeyFunc(of)
		must(t, err)
		stored[key] = revision(t, of)
	}
	for what, believed := range map[string]map[string]uint64{"store": stored, "events": f.told} {
		if fmt.Sprint(believed) != fmt.Sprint(is) {
			return fmt.Sprintf("%s by its %s: %v instead of %v", name, what, believed, is)
		}
	}
	return ""
}

func TestInformersBelieveWhatIsTrueWhileEverythingChangesAndConnectionsBreak(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	w := newWorld(t)
	selected := func(options *metav1.ListOptions) { options.LabelSelector = "even=yes" }
	namespaced := informers.WithNamespace(w.namespace)
	dialer := connrotation.NewDialer((&net.Dialer{}).DialContext)
	broken := rest.CopyConfig(w.config)
	broken.Dial = dialer.DialContext
	fragile := worldBy(t, broken)

	whole := informers.NewSharedInformerFactoryWithOptions(fragile.typed, 0, namespaced)
	even := informers.NewSharedInformerFactoryWithOptions(fragile.typed, 0, namespaced, informers.WithTweakListOptions(selected))
	untyped := dynamicinformer.NewFilteredDynamicSharedInformerFactory(fragile.dynamic, 0, w.namespace, nil)
	alone := metadatainformer.NewFilteredSharedInformerFactory(fragile.metadata, 0, w.namespace, nil)
	followers := map[string]*follower{
		"typed":    follow(t, whole.Core().V1().ConfigMaps().Informer()),
		"selected": follow(t, even.Core().V1().ConfigMaps().Informer()),
		"dynamic":  follow(t, untyped.ForResource(configMaps).Informer()),
		"metadata": follow(t, alone.ForResource(configMaps).Informer()),
	}
	stop := make(chan struct{})
	defer close(stop)
	for _, factory := range []interface{ Start(<-chan struct{}) }{whole, even, untyped, alone} {
		factory.Start(stop)
	}
	whole.WaitForCacheSync(stop)

	maps := w.typed.CoreV1().ConfigMaps(w.namespace)
	ended, stopBreaking := context.WithCancel(w.ctx)
	var writers, breaker sync.WaitGroup
	breaker.Add(1)
	go func() {
		defer breaker.Done()
		for ended.Err() == nil {
			time.Sleep(300 * time.Millisecond)
			dialer.CloseAll()
		}
	}()
	for writer := range 4 {
		random := rand.New(rand.NewSource(seed + int64(writer)))
		writers.Add(1)
		go func() {
			defer writers.Done()
			for range 400 {
				name := numbered("m", random.Intn(20))
				var err error
				switch random.Intn(4) {
				case 0:
					_, err = maps.Create(w.ctx, w.configMap(name), metav1.CreateOptions{})
				case 1:
					patch := fmt.Sprintf(`{"data":{"n":"%d"}}`, random.Int())
					_, err = maps.Patch(w.ctx, name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
				case 2:
					// In and out of the selection.
					patch := fmt.Sprintf(`{"metadata":{"labels":{"even":%s}}}`, []string{`"yes"`, "null"}[random.Intn(2)])
					_, err = maps.Patch(w.ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
				case 3:
					err = maps.Delete(w.ctx, name, metav1.DeleteOptions{})
				}
				if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsAlreadyExists(err) && !apierrors.IsConflict(err) {
					t.Errorf("%s: %v", name, err)
				}
			}
		}()
	}
	writers.Wait()
	stopBreaking()
	breaker.Wait()

	is := func(selector string) map[string]uint64 {
		list, err := maps.List(w.ctx, metav1.ListOptions{LabelSelector: selector})
		must(t, err)
		found := map[string]uint64{}
		for i := range list.Items {
			found[w.namespace+"/"+list.Items[i].Name] = revision(t, &list.Items[i])
		}
		return found
	}
	for name, follower := range followers {
		selector := ""
		if name == "selected" {
			selector = "even=yes"
		}
		eventually(t, func() string { return follower.differs(t, name, is(selector)) })
	}
}

func TestAWatchThatIsResumedMissesNothingAndRepeatsNothing(t *testing.T) {
	w := newWorld(t)
	dialer := connrotation.NewDialer((&net.Dialer{}).DialContext)
	broken := rest.CopyConfig(w.config)
	broken.Dial = dialer.DialContext
	fragile := worldBy(t, broken)
	maps := fragile.typed.CoreV1().ConfigMaps(w.namespace)
	list, err := maps.List(w.ctx, metav1.ListOptions{})
	must(t, err)
	watcher, err := watchtools.NewRetryWatcherWithContext(w.ctx, list.ResourceVersion, &cache.ListWatch{
		WatchFunc: func(options metav1.ListOptions) (watch.Interface, error) { return maps.Watch(w.ctx, options) },
	})
	must(t, err)
	defer watcher.Stop()
	const changes = 200
	written := make(chan error, 1)
	go func() {
		written <- eachOf(changes, func(i int) error {
			if i%20 == 19 {
				dialer.CloseAll()
			}
			_, err := w.typed.CoreV1().ConfigMaps(w.namespace).Create(w.ctx, w.configMap(fmt.Sprintf("m-%d", i)), metav1.CreateOptions{})
			return err
		})
	}()
	for i := range changes {
		select {
		case event := <-watcher.ResultChan():
			same(t, "event", event.Type, watch.Added)
			same(t, "in its turn", event.Object.(*corev1.ConfigMap).Name, fmt.Sprintf("m-%d", i))
		case <-time.After(patience):
			t.Fatalf("change %d was never told", i)
		}
	}
	must(t, <-written)
}

func TestWhoAsksForTheStateFirstIsToldWhenItIsWhole(t *testing.T) {
	w := newWorld(t)
	maps := w.typed.CoreV1().ConfigMaps(w.namespace)
	yes := true
	_, err := maps.Create(w.ctx, w.configMap("a"), metav1.CreateOptions{})
	must(t, err)
	watcher, err := maps.Watch(w.ctx, metav1.ListOptions{
		SendInitialEvents: &yes, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, AllowWatchBookmarks: true,
	})
	must(t, err)
	defer watcher.Stop()
	for added := 0; ; {
		event := <-watcher.ResultChan()
		if event.Type == watch.Bookmark {
			accessor, err := meta.Accessor(event.Object)
			must(t, err)
			same(t, "the end of the state", accessor.GetAnnotations()[metav1.InitialEventsAnnotationKey], "true")
			same(t, "objects before it", added, 2)
			return
		}
		same(t, "event", event.Type, watch.Added)
		added++
	}
}
