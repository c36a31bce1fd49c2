"""Stands in for a scheduler, a kubelet that can run any image, and the controller of Deployments.

Pods are bound, run, are ready, and go when they are told to; a Deployment says that it has what it wants. Suites that were written
for whole clusters wait for that, and ask the apiserver about it. Logs, exec and ports need a real kubelet.
"""

import datetime
import sys
import threading
import time

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
        ready = [one for one in pod.status.conditions or [] if one.type == "Ready" and one.status == "True"]
        if ready:
            over = {"conditions": [{**condition("Ready"), "status": "False"}]}
            api.patch_namespaced_pod_status(meta.name, meta.namespace, {"status": over})
        elif meta.deletion_grace_period_seconds:
            time.sleep(0.5)  # for those who wait for it to be ready no more
            api.delete_namespaced_pod(meta.name, meta.namespace, grace_period_seconds=0)
    elif not pod.spec.node_name:
        if pod.spec.scheduling_gates or pod.spec.node_selector:
            return
        target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": meta.name}, "target": target}
        api.create_namespaced_pod_binding(meta.name, meta.namespace, binding, _preload_content=False)
    elif pod.spec.node_name == NODE and pod.status.phase == "Pending":
        api.patch_namespaced_pod_status(meta.name, meta.namespace, {"status": running(pod)})


def settle(apps, deployment):
    wanted = deployment.spec.replicas
    keys = ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"]
    status = {**{key: wanted for key in keys}, "observedGeneration": deployment.metadata.generation}
    if deployment.status.observed_generation != deployment.metadata.generation:
        apps.patch_namespaced_deployment_status(deployment.metadata.name, deployment.metadata.namespace, {"status": status})


def follow(collection, act):
    while True:
        for event in watch.Watch().stream(collection, timeout_seconds=60):
            if event["type"] in ("ADDED", "MODIFIED"):
                try:
                    act(event["object"])
                except client.ApiException as error:
                    if error.status not in (404, 409):
                        print(error, file=sys.stderr, flush=True)


def main():
    config.load_kube_config()
    api, apps, core = client.CoreV1Api(), client.AppsV1Api(), client.CoreApi()
    node = {"metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE, "node-role.kubernetes.io/control-plane": ""}}}
    try:
        api.create_node(node)
    except client.ApiException as error:
        if error.status != 409:
            raise
    ready = {"conditions": [condition("Ready")], "capacity": {"cpu": "64", "memory": "64Gi", "pods": "1000"}}
    ready["allocatable"] = ready["capacity"]
    api.patch_node_status(NODE, {"status": ready})
    # Whole clusters have some in this namespace.
    pod = {"metadata": {"name": "etcd"}, "spec": {"containers": [{"name": "etcd", "image": "etcd"}]}}
    api.create_namespaced_pod("kube-system", pod)
    print("ready", flush=True)
    deployments = (apps.list_deployment_for_all_namespaces, lambda deployment: settle(apps, deployment))
    threading.Thread(target=follow, args=deployments, daemon=True).start()
    pods = (api.list_pod_for_all_namespaces, lambda pod: step(api, pod))
    threading.Thread(target=follow, args=pods, daemon=True).start()
    while core.get_api_versions():  # until there is nobody to ask
        time.sleep(5)


if __name__ == "__main__":
    main()
