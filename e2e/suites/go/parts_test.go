package e2e

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/tools/reference"
)

func TestTwoCandidatesLeadOneAfterTheOther(t *testing.T) {
	w := newWorld(t)
	var leaders, most atomic.Int32
	took := make(chan string, 2)
	candidate := func(ctx context.Context, name string) {
		lock, err := resourcelock.New(resourcelock.LeasesResourceLock, w.namespace, "leader", w.typed.CoreV1(), w.typed.CoordinationV1(),
			resourcelock.ResourceLockConfig{Identity: name})
		must(t, err)
		leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
			Lock: lock, LeaseDuration: 6 * time.Second, RenewDeadline: 4 * time.Second, RetryPeriod: 200 * time.Millisecond, ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(ctx context.Context) {
					most.Store(max(most.Load(), leaders.Add(1)))
					took <- name
					<-ctx.Done()
					leaders.Add(-1)
				},
				OnStoppedLeading: func() {},
			},
		})
	}
	first, abdicate := context.WithCancel(w.ctx)
	go candidate(first, "first")
	same(t, "leader", <-took, "first")
	second, end := context.WithCancel(w.ctx)
	defer end()
	go candidate(second, "second")
	time.Sleep(time.Second)
	same(t, "leaders while the first one renews", leaders.Load(), 1)
	abdicate()
	same(t, "leader", <-took, "second")
	same(t, "leaders at a time", most.Load(), 1)
	lease, err := w.typed.CoordinationV1().Leases(w.namespace).Get(w.ctx, "leader", metav1.GetOptions{})
	must(t, err)
	same(t, "holder", *lease.Spec.HolderIdentity, "second")
}

func TestEventsThatRepeatAreCountedByBothRecorders(t *testing.T) {
	w := newWorld(t)
	about, err := w.typed.CoreV1().ConfigMaps(w.namespace).Create(w.ctx, w.configMap("a"), metav1.CreateOptions{})
	must(t, err)
	reference, err := reference.GetReference(scheme.Scheme, about)
	must(t, err)

	old := record.NewBroadcaster()
	old.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: w.typed.CoreV1().Events("")})
	defer old.Shutdown()
	recorder := old.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "go"})
	for range 3 {
		recorder.Event(reference, corev1.EventTypeNormal, "Seen", "it was seen")
	}
	eventually(t, func() string {
		list, err := w.typed.CoreV1().Events(w.namespace).List(w.ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=a,reason=Seen"})
		must(t, err)
		return missingUnless(len(list.Items) == 1 && list.Items[0].Count == 3, "events: %v", list.Items)
	})

	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: w.typed.EventsV1()})
	must(t, broadcaster.StartRecordingToSinkWithContext(w.ctx))
	defer broadcaster.Shutdown()
	newer := broadcaster.NewRecorder(scheme.Scheme, "onex.io/go")
	// One that repeats before the first is stored is tried again only after ten seconds.
	for counted := range 2 {
		newer.Eventf(reference, nil, corev1.EventTypeWarning, "Lost", "Looking", "it was lost")
		eventually(t, func() string {
			list, err := w.typed.EventsV1().Events(w.namespace).List(w.ctx, metav1.ListOptions{FieldSelector: "reason=Lost"})
			must(t, err)
			there := len(list.Items) == 1 && (counted == 0 || list.Items[0].Series != nil && list.Items[0].Series.Count == 2)
			return missingUnless(there, "events: %v", list.Items)
		})
	}
}
