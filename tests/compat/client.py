"""Drives a cluster with the Python client: client.py OBJECTS.json NAMESPACE POD. Any difference is an exception."""
import json
import sys
import threading
import time

from kubernetes import client, config, dynamic, watch
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError
from kubernetes.stream import stream

objects, namespace, pod = json.load(open(sys.argv[1])), sys.argv[2], sys.argv[3]
config.load_kube_config()
api = client.ApiClient()
dyn = dynamic.DynamicClient(api)
core = client.CoreV1Api(api)
LABELS = {"compat": "yes"}


def until(what, check):
    end = time.monotonic() + 30
    while not check():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def gone(resource, name, ns):
    try:
        resource.get(name=name, namespace=ns)
        return False
    except NotFoundError:
        return True


def one(obj):
    resource = dyn.resources.get(api_version=obj["apiVersion"], kind=obj["kind"])
    ns = namespace if resource.namespaced else None
    name = "py-" + obj["kind"].lower()
    obj = dict(obj, metadata={"name": name, "labels": LABELS})
    what = f"{obj['apiVersion']} {obj['kind']}"
    start = resource.get(namespace=ns, label_selector="compat=yes").metadata.resourceVersion
    seen, watcher = [], watch.Watch()

    def follow():
        for event in resource.watch(
            namespace=ns, label_selector="compat=yes", resource_version=start, timeout=60, watcher=watcher
        ):
            if event["object"].metadata.name == name:
                seen.append(event["type"])
                if event["type"] == "DELETED":
                    watcher.stop()

    thread = threading.Thread(target=follow)
    thread.start()
    made = resource.create(body=obj, namespace=ns)
    assert made.metadata.uid and made.kind == obj["kind"], what
    try:
        resource.create(body=obj, namespace=ns)
        raise AssertionError(f"{what} was created twice")
    except ConflictError as e:
        assert json.loads(e.body)["reason"] == "AlreadyExists", e.body
    assert resource.get(name=name, namespace=ns).metadata.uid == made.metadata.uid, what
    assert name in [i.metadata.name for i in resource.get(namespace=ns, label_selector="compat=yes").items], what
    merge, strategic = "application/merge-patch+json", "application/strategic-merge-patch+json"
    for kind, body in (
        (merge, {"metadata": {"annotations": {"merge": "1"}}}),
        (strategic, {"metadata": {"annotations": {"strategic": "1"}}}),
        ("application/json-patch+json", [{"op": "add", "path": "/metadata/annotations/json", "value": "1"}]),
    ):
        resource.patch(name=name, namespace=ns, body=body, content_type=kind)
    applied = {k: obj[k] for k in ("apiVersion", "kind")}
    applied["metadata"] = {"name": name, "annotations": {"applied": "1"}}
    # Kinds of which a field is required cannot be applied without it.
    applied.update({k: v for k, v in obj.items() if k not in applied and k not in ("stringData", "metadata")})
    resource.server_side_apply(name=name, namespace=ns, body=applied, field_manager="compat", force_conflicts=True)
    now = resource.get(name=name, namespace=ns)
    for key in ("merge", "strategic", "json", "applied"):
        assert now.metadata.annotations[key] == "1", f"{what} lacks {key}"
    assert any(m.manager == "compat" and m.operation == "Apply" for m in now.metadata.managedFields), what
    resource.delete(name=name, namespace=ns)
    until(f"{what} is gone", lambda: gone(resource, name, ns))
    thread.join(30)
    assert not thread.is_alive() and seen[0] == "ADDED" and seen[-1] == "DELETED" and "MODIFIED" in seen, (what, seen)


def collections():
    for i in range(3):
        meta = client.V1ObjectMeta(name=f"many-{i}", labels={"many": "yes"})
        core.create_namespaced_config_map(namespace, client.V1ConfigMap(metadata=meta, data={"i": str(i)}))
    first = core.list_namespaced_config_map(namespace, label_selector="many=yes", limit=2)
    assert len(first.items) == 2 and first.metadata.remaining_item_count is None or first.metadata._continue
    rest = core.list_namespaced_config_map(namespace, label_selector="many=yes", limit=2, _continue=first.metadata._continue)
    assert [c.metadata.name for c in first.items + rest.items] == ["many-0", "many-1", "many-2"]
    core.delete_collection_namespaced_config_map(namespace, label_selector="many=yes")
    assert not core.list_namespaced_config_map(namespace, label_selector="many=yes").items


def typed():
    apps = client.AppsV1Api(api)
    labels = {"typed": "yes"}
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels=labels),
        spec=client.V1PodSpec(containers=[client.V1Container(name="c", image="i")]),
    )
    spec = client.V1DeploymentSpec(replicas=0, selector=client.V1LabelSelector(match_labels=labels), template=template)
    apps.create_namespaced_deployment(namespace, client.V1Deployment(metadata=client.V1ObjectMeta(name="typed"), spec=spec))
    scale = apps.read_namespaced_deployment_scale("typed", namespace)
    assert not scale.spec.replicas
    apps.patch_namespaced_deployment_scale("typed", namespace, {"spec": {"replicas": 1}})
    assert apps.read_namespaced_deployment("typed", namespace).spec.replicas == 1
    apps.delete_namespaced_deployment("typed", namespace)
    review = client.V1SelfSubjectAccessReview(
        spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=client.V1ResourceAttributes(verb="get", resource="pods"))
    )
    assert client.AuthorizationV1Api(api).create_self_subject_access_review(review).status.allowed
    try:
        core.create_namespaced_config_map(namespace, {"metadata": {"name": "A_b"}})
        raise AssertionError("a bad name was taken")
    except client.ApiException as e:
        assert e.status == 422 and json.loads(e.body)["details"]["causes"][0]["field"] == "metadata.name"
    version = client.VersionApi(api).get_code()
    assert version.minor == "36"


def container():
    # As bytes: this client's own decoding of text is at fault in some versions.
    log = core.read_namespaced_pod_log(pod, namespace, tail_lines=1, _preload_content=False)
    assert log.data == b"ready\n", log.data
    run = lambda *command, **kw: stream(
        core.connect_get_namespaced_pod_exec, pod, namespace, command=list(command), stdout=True, stderr=True, stdin=False, tty=False, **kw
    )
    assert run("echo", "hello") == "hello\n"
    ws = run("sh", "-c", "echo out; echo err >&2; exit 3", _preload_content=False)
    ws.run_forever(timeout=30)
    assert (ws.read_stdout(), ws.read_stderr(), ws.returncode) == ("out\n", "err\n", 3)
    lines = watch.Watch().stream(core.read_namespaced_pod_log, name=pod, namespace=namespace, tail_lines=1)
    assert next(iter(lines)) == "ready"


collections()
typed()
container()
for each in objects:
    one(each)
print(f"{len(objects)} kinds")
