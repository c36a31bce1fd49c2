"""Stands in for a scheduler and a kubelet that can run any image: Pods are bound, run, are ready, and go when they are told to.

Suites that were written for whole clusters wait for that, and ask the apiserver about it. Logs, exec and ports need a real one.
"""

import datetime
import sys
import threading

from kubernetes import client, config, watch

NODE = "suites"


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(kind):
    return {"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": now()}


def running(pod):
    states = [
        {
            "name": container.name,
            "image": container.image,
            "imageID": "",
            "ready": True,
            "started": True,
            "restartCount": 0,
            "state": {"running": {"startedAt": now()}},
        }
        for container in pod.spec.containers
    ]
    kinds = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
    return {
        "phase": "Running",
        "podIP": "10.0.0.1",
        "podIPs": [{"ip": "10.0.0.1"}],
        "hostIP": "127.0.0.1",
        "startTime": now(),
        "conditions": [condition(kind) for kind in kinds],
        "containerStatuses": states,
    }


def step(api, pod):
    meta = pod.metadata
    if meta.deletion_timestamp is not None:
        if not meta.finalizers or meta.deletion_grace_period_seconds:
            api.delete_namespaced_pod(meta.name, meta.namespace, grace_period_seconds=0)
    elif not pod.spec.node_name:
        if pod.spec.scheduling_gates or pod.spec.node_selector:
            return
        target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": meta.name}, "target": target}
        api.create_namespaced_binding(meta.namespace, binding, _preload_content=False)
    elif pod.spec.node_name == NODE and pod.status.phase == "Pending":
        api.patch_namespaced_pod_status(meta.name, meta.namespace, {"status": running(pod)})


def main():
    config.load_kube_config()
    api = client.CoreV1Api()
    node = {"metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE, "node-role.kubernetes.io/control-plane": ""}}}
    try:
        api.create_node(node)
    except client.ApiException as error:
        if error.status != 409:
            raise
    ready = {"conditions": [condition("Ready")], "capacity": {"cpu": "64", "memory": "64Gi", "pods": "1000"}}
    ready["allocatable"] = ready["capacity"]
    api.patch_node_status(NODE, {"status": ready})
    print("ready", flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), __import__("os")._exit(0)), daemon=True).start()
    while True:
        for event in watch.Watch().stream(api.list_pod_for_all_namespaces, timeout_seconds=60):
            if event["type"] in ("ADDED", "MODIFIED"):
                try:
                    step(api, event["object"])
                except client.ApiException as error:
                    if error.status not in (404, 409):
                        print(error, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
