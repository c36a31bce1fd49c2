// The JavaScript client, as it is published, against the platform that KUBECONFIG names.

import assert from 'node:assert/strict';
import { before, after, test } from 'node:test';
import * as k8s from '@kubernetes/client-node';

const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const objects = k8s.KubernetesObjectApi.makeApiClient(config);
const namespace = `javascript-${process.pid}`;

const map = (name, data = {}) => ({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, namespace }, data });

/** Waits until `question` has an answer. */
async function eventually(question) {
  for (let tries = 0; tries < 600; tries++) {
    const answer = await question();
    if (answer) return answer;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`never: ${question}`);
}

before(() => core.createNamespace({ body: { metadata: { name: namespace } } }));
after(() => core.deleteNamespace({ name: namespace }));

test('objects are made, read, replaced, listed and deleted', async () => {
  const made = await core.createNamespacedConfigMap({ namespace, body: map('a', { k: '1' }) });
  assert.ok(made.metadata.uid && made.metadata.creationTimestamp instanceof Date);
  made.data.k = '2';
  const replaced = await core.replaceNamespacedConfigMap({ namespace, name: 'a', body: made });
  assert.equal(replaced.data.k, '2');
  await assert.rejects(core.replaceNamespacedConfigMap({ namespace, name: 'a', body: made }), { code: 409 });
  await assert.rejects(core.createNamespacedConfigMap({ namespace, body: map('a') }), { code: 409 });
  await assert.rejects(core.readNamespacedConfigMap({ namespace, name: 'none' }), { code: 404 });
  await assert.rejects(core.createNamespacedConfigMap({ namespace, body: map('A_') }), { code: 422 });
  const listed = await core.listNamespacedConfigMap({ namespace, fieldSelector: 'metadata.name=a' });
  assert.deepEqual(listed.items.map((item) => item.metadata.name), ['a']);
  const status = await core.deleteNamespacedConfigMap({ namespace, name: 'a' });
  assert.equal(status.status, 'Success');
});

test('a namespace is patched in each of the ways that there are', async () => {
  const patch = (type, body) =>
    core.patchNamespace({ name: namespace, body }, k8s.setHeaderOptions('Content-Type', type));
  await patch(k8s.PatchStrategy.StrategicMergePatch, { metadata: { labels: { a: '1' } } });
  await patch(k8s.PatchStrategy.MergePatch, { metadata: { labels: { b: '2' } } });
  const patched = await patch(k8s.PatchStrategy.JsonPatch, [{ op: 'add', path: '/metadata/labels/c', value: '3' }]);
  const { a, b, c } = patched.metadata.labels;
  assert.deepEqual([a, b, c], ['1', '2', '3']);
});

test('a server-side apply owns, conflicts and gives way to force', async () => {
  const apply = (manager, data, force) =>
    objects.patch(map('applied', data), undefined, undefined, manager, force, k8s.PatchStrategy.ServerSideApply);
  await apply('one', { k: '1' });
  await apply('two', { l: '2' });
  await assert.rejects(apply('two', { k: '2' }), { code: 409 });
  const forced = await apply('two', { k: '2' }, true);
  assert.deepEqual(forced.data, { k: '2' });
});

test('custom resources of the platform are objects like others', async () => {
  const set = {
    apiVersion: 'apps.onex.io/v1beta1',
    kind: 'MinerSet',
    metadata: { name: 'set', namespace },
    spec: { replicas: 0, template: { spec: { chainName: 'none', minerType: 'S1.SMALL1' } } },
  };
  const made = await objects.create(set);
  assert.equal(made.spec.deletePolicy, 'Random');
  const custom = config.makeApiClient(k8s.CustomObjectsApi);
  const where = { group: 'apps.onex.io', version: 'v1beta1', namespace, plural: 'minersets' };
  const scale = await custom.getNamespacedCustomObjectScale({ ...where, name: 'set' });
  assert.equal(scale.kind, 'Scale');
  const listed = await custom.listNamespacedCustomObject(where);
  assert.equal(listed.items.length, 1);
  await objects.delete(set);
});

test('a watch tells what happens, from the revision of the list', async () => {
  const listed = await core.listNamespacedConfigMap({ namespace });
  const seen = [];
  const watch = new k8s.Watch(config);
  let end;
  const ended = new Promise((resolve) => (end = resolve));
  const query = { resourceVersion: listed.metadata.resourceVersion, labelSelector: 'w=1' };
  const path = `/api/v1/namespaces/${namespace}/configmaps`;
  const request = await watch.watch(path, query, (type, object) => seen.push([type, object.metadata.name]), end);
  const body = map('watched');
  body.metadata.labels = { w: '1' };
  await core.createNamespacedConfigMap({ namespace, body });
  body.data = { k: '1' };
  await core.replaceNamespacedConfigMap({ namespace, name: 'watched', body });
  await core.deleteNamespacedConfigMap({ namespace, name: 'watched' });
  await eventually(() => seen.length >= 3);
  assert.deepEqual(seen, ['ADDED', 'MODIFIED', 'DELETED'].map((type) => [type, 'watched']));
  request.abort();
  await ended;
});

test('an informer knows what is there, also after its watch ended', async () => {
  const list = () => core.listNamespacedConfigMap({ namespace, labelSelector: 'i=1' });
  const path = `/api/v1/namespaces/${namespace}/configmaps`;
  const informer = k8s.makeInformer(config, path, list, 'i=1');
  const told = [];
  for (const event of ['add', 'update', 'delete']) informer.on(event, (object) => told.push(`${event} ${object.metadata.name}`));
  const wrong = [];
  informer.on('error', (error) => wrong.push(error));
  await informer.start();
  const labelled = (name) => ({ ...map(name), metadata: { name, namespace, labels: { i: '1' } } });
  await core.createNamespacedConfigMap({ namespace, body: labelled('first') });
  await eventually(() => told.includes('add first'));
  await informer.stop();
  await core.createNamespacedConfigMap({ namespace, body: labelled('second') });
  await core.deleteNamespacedConfigMap({ namespace, name: 'first' });
  await informer.start();
  await eventually(() => told.includes('add second') && told.includes('delete first'));
  assert.deepEqual(informer.list(namespace).map((object) => object.metadata.name), ['second']);
  await informer.stop();
  assert.deepEqual(wrong.filter((error) => error?.code !== 'ECONNRESET' && error?.name !== 'AbortError'), []);
});

test('a token of an account lets in as that account', async () => {
  await core.createNamespacedServiceAccount({ namespace, body: { metadata: { name: 'robot' } } });
  const asked = await core.createNamespacedServiceAccountToken({ namespace, name: 'robot', body: { spec: { audiences: [] } } });
  const other = new k8s.KubeConfig();
  const cluster = config.getCurrentCluster();
  other.loadFromClusterAndUser(cluster, { name: 'robot', token: asked.status.token });
  const review = await other.makeApiClient(k8s.AuthenticationV1Api).createSelfSubjectReview({ body: {} });
  assert.equal(review.status.userInfo.username, `system:serviceaccount:${namespace}:robot`);
  await assert.rejects(other.makeApiClient(k8s.CoreV1Api).listNamespacedSecret({ namespace }), { code: 403 });
});

test('what is served is found', async () => {
  const groups = await config.makeApiClient(k8s.ApisApi).getAPIVersions();
  assert.ok(groups.groups.some((group) => group.name === 'apps.onex.io'));
  const version = await config.makeApiClient(k8s.VersionApi).getCode();
  assert.match(version.gitVersion, /^v1\.\d+/);
});
