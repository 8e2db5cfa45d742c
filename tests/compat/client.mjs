// Drives a cluster with the JavaScript client: client.mjs OBJECTS.json NAMESPACE POD. Any difference is an exception.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { Writable } from "node:stream";

// Modules are found by NODE_PATH, which `import` does not look at.
const require = createRequire(`${process.env.NODE_PATH}/x.js`);
const k8s = await import(require.resolve("@kubernetes/client-node"));
const [, , file, namespace, pod] = process.argv;
const objects = JSON.parse(readFileSync(file));
const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);
const any = k8s.KubernetesObjectApi.makeApiClient(config);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function until(what, check) {
  for (let i = 0; i < 600; i++) {
    if (await check()) return;
    await sleep(50);
  }
  assert.fail(what);
}

const missing = async (what) => what.then(() => false, (e) => e.code === 404);

const MERGE = k8s.PatchStrategy.MergePatch;
const STRATEGIC = k8s.PatchStrategy.StrategicMergePatch;
const APPLY = k8s.PatchStrategy.ServerSideApply;

async function one(given) {
  const name = `js-${given.kind.toLowerCase()}`;
  const head = { apiVersion: given.apiVersion, kind: given.kind };
  const what = `${given.apiVersion} ${given.kind}`;
  const resource = await any.resource(given.apiVersion, given.kind);
  const ns = resource.namespaced ? { namespace } : {};
  const object = { ...given, metadata: { name, ...ns, labels: { compat: "yes" } } };
  const made = await any.create(object);
  assert.equal(made.kind, given.kind, what);
  await any.create(object).then(() => assert.fail(`${what} was created twice`), (e) => assert.equal(e.code, 409, what));
  const at = { ...head, metadata: { name, ...ns } };
  assert.equal((await any.read(at)).metadata.uid, made.metadata.uid, what);
  const list = await any.list(head.apiVersion, head.kind, ns.namespace, undefined, undefined, undefined, undefined, "compat=yes");
  assert(list.items.some((i) => i.metadata.name === name), what);
  const annotated = (key) => ({ ...at, metadata: { ...at.metadata, annotations: { [key]: "1" } } });
  await any.patch(annotated("merge"), undefined, undefined, undefined, undefined, MERGE);
  await any.patch(annotated("strategic"), undefined, undefined, undefined, undefined, STRATEGIC);
  const { stringData, ...rest } = given;
  const applied = { ...rest, ...annotated("applied") };
  await any.patch(applied, undefined, undefined, "compat", true, APPLY);
  const now = await any.read(at);
  for (const key of ["merge", "strategic", "applied"]) assert.equal(now.metadata.annotations[key], "1", `${what} ${key}`);
  now.metadata.annotations.replaced = "1";
  await until(`${what} is replaced`, async () => {
    const fresh = await any.read(at);
    fresh.metadata.annotations.replaced = "1";
    return any.replace(fresh).then(() => true, (e) => (e.code === 409 ? false : Promise.reject(e)));
  });
  await any.delete(at);
  await until(`${what} is gone`, () => missing(any.read(at)));
}

async function informer() {
  const seen = [];
  const list = () => core.listNamespacedConfigMap({ namespace, labelSelector: "informed=yes" });
  const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/configmaps`, list, "informed=yes");
  for (const verb of ["add", "update", "delete"]) informer.on(verb, (o) => seen.push(`${verb} ${o.metadata.name}`));
  await informer.start();
  const body = { metadata: { name: "informed", labels: { informed: "yes" } }, data: { a: "b" } };
  await core.createNamespacedConfigMap({ namespace, body });
  await until("added", () => seen.includes("add informed"));
  await core.replaceNamespacedConfigMap({ namespace, name: "informed", body: { ...body, data: { a: "c" } } });
  await until("updated", () => seen.includes("update informed"));
  await core.deleteCollectionNamespacedConfigMap({ namespace, labelSelector: "informed=yes" });
  await until("deleted", () => seen.includes("delete informed"));
  await informer.stop();
}

async function container() {
  assert.equal(await core.readNamespacedPodLog({ name: pod, namespace, tailLines: 1 }), "ready\n");
  let out = "";
  const into = new Writable({ write: (chunk, _, done) => ((out += chunk), done()) });
  const status = await new Promise((done, failed) =>
    new k8s.Exec(config).exec(namespace, pod, "c", ["echo", "hello"], into, into, null, false, done).catch(failed));
  assert.equal(status.status, "Success");
  await until("output", () => out === "hello\n");
}

await informer();
await container();
const scale = { spec: { replicas: 2 } };
const labels = { typed: "js" };
const template = { metadata: { labels }, spec: { containers: [{ name: "c", image: "i" }] } };
await apps.createNamespacedDeployment({ namespace, body: { metadata: { name: "js" }, spec: { replicas: 0, selector: { matchLabels: labels }, template } } });
await apps.patchNamespacedDeploymentScale({ namespace, name: "js", body: scale }, k8s.setHeaderOptions("Content-Type", MERGE));
assert.equal((await apps.readNamespacedDeployment({ namespace, name: "js" })).spec.replicas, 2);
await apps.deleteNamespacedDeployment({ namespace, name: "js" });
for (const object of objects) await one(object);
console.log(`${objects.length} kinds`);
process.exit(0);
