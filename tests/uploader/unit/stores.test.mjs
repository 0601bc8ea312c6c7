// Where uploader.js remembers unfinished uploads, and errors as it hands them out.
import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import {
  FileStore, LocalStorageStore, MemoryStore, NetworkResilientUploader, UploadError,
} from '../../../src/hmac_file_server/web/uploader.js';

/** As much of localStorage as a store needs. */
class Storage {
  #items = new Map();
  get length() { return this.#items.size; }
  key(index) { return [...this.#items.keys()][index] ?? null; }
  getItem(key) { return this.#items.get(key) ?? null; }
  setItem(key, value) { this.#items.set(key, String(value)); }
  removeItem(key) { this.#items.delete(key); }
}

globalThis.localStorage = new Storage();
const folder = await mkdtemp(join(tmpdir(), 'uploader-stores-'));
after(() => rm(folder, { recursive: true }));

const entry = {
  key: 'k', sessionId: '1_a', endpoint: 'https://files.example.org/upload/chunked', name: 'ä.txt', size: 5, created: 1,
  expiresAt: null,
};

const stores = {
  MemoryStore: () => new MemoryStore(),
  LocalStorageStore: () => new LocalStorageStore(`test ${Math.random()} `),
  FileStore: () => new FileStore(join(folder, String(Math.random()), 'deep')),
};

for (const [name, make] of Object.entries(stores)) {
  describe(name, () => {
    test('gives back what it was given, and forgets what it is told to', async () => {
      const store = make();
      assert.equal(await store.get('a'), null);
      assert.deepEqual(await store.list(), []);
      await store.delete('a');
      await store.set('a', entry);
      await store.set('../../b "c"', { ...entry, sessionId: null });
      const found = await store.get('a');
      for (const [member, value] of Object.entries(entry)) assert.deepEqual(found[member], value);
      assert.equal((await store.get('../../b "c"')).sessionId, null);
      assert.deepEqual((await store.list()).map(([fingerprint]) => fingerprint).sort(), ['../../b "c"', 'a']);
      await store.set('a', { ...entry, sessionId: '2_b' });
      assert.equal((await store.get('a')).sessionId, '2_b');
      await store.delete('a');
      assert.equal(await store.get('a'), null);
      assert.equal((await store.list()).length, 1);
    });
  });
}

describe('what is damaged is not there', () => {
  test('in localStorage', async () => {
    const store = new LocalStorageStore('damaged ');
    for (const text of ['', '{', '[]', 'null', '{"key": 1}']) {
      localStorage.setItem('damaged x', text);
      assert.equal(await store.get('x'), null);
      assert.deepEqual(await store.list(), []);
    }
  });

  test('in a folder', async () => {
    const path = join(folder, 'damaged');
    const store = new FileStore(path);
    await store.set('x', entry);
    const [file] = await readdir(path);
    await writeFile(join(path, file), '{"key":');
    assert.equal(await store.get('x'), null);
    assert.deepEqual(await store.list(), []);
  });
});

test('files are for their owner only', async () => {
  const path = join(folder, 'private');
  await new FileStore(path).set('x', entry);
  const [file] = await readdir(path);
  assert.equal((await stat(join(path, file))).mode & 0o777, 0o600);
  assert.equal((await stat(path)).mode & 0o777, 0o700);
});

describe('errors', () => {
  test('are errors, and say what programs need', () => {
    const cause = new Error('why');
    const error = new UploadError('too_large', 'Too large.', { status: 413, detail: 'd', requestId: 'r', cause });
    assert.ok(error instanceof Error);
    assert.deepEqual(
      [error.name, error.code, error.status, error.retriable, error.detail, error.requestId, error.retryAfter, error.cause],
      ['UploadError', 'too_large', 413, false, 'd', 'r', null, cause],
    );
  });
});

describe('the object', () => {
  const file = { name: 'a', size: 3, slice: () => new Uint8Array(3) };

  test('has what the guide\'s class has', () => {
    const plain = new NetworkResilientUploader(file, '/upload/chunked');
    assert.deepEqual(
      [plain.file, plain.endpoint, plain.chunkSize, plain.maxRetries],
      [file, '/upload/chunked', 5 * 1024 * 1024, 5],
    );
    const other = new NetworkResilientUploader(file, '/upload/chunked', { chunkSize: 10, maxRetries: 0 });
    assert.deepEqual([other.chunkSize, other.maxRetries], [10, 0]);
    for (const method of ['upload', 'startSession', 'uploadChunk']) assert.equal(typeof plain[method], 'function');
  });

  test('tells nothing of progress before it begins, and bears orders that mean nothing then', async () => {
    const uploader = new NetworkResilientUploader(file, '/upload/chunked');
    assert.equal(uploader.state, 'idle');
    assert.deepEqual(uploader.progress, { sent: 0, acknowledged: 0, total: 3, rate: 0, secondsLeft: null });
    uploader.pause();
    uploader.resume();
    assert.equal(uploader.state, 'idle');
    await uploader.abort();
    assert.equal(uploader.state, 'aborted');
  });

  test('refuses a signal that is aborted already', async () => {
    const uploader = new NetworkResilientUploader(file, 'http://127.0.0.1:9/upload/chunked', { signal: AbortSignal.abort('enough') });
    await assert.rejects(uploader.upload(), (error) => error.code === 'aborted' && error.cause === 'enough');
    assert.equal(uploader.state, 'aborted');
  });

  test('reads a file by its path, and not what is none', async () => {
    const path = join(folder, 'some.bin');
    await writeFile(path, 'hello');
    const source = await NetworkResilientUploader.fromPath(path);
    assert.deepEqual([source.name, source.size], ['some.bin', 5]);
    assert.equal(Buffer.from(await source.slice(1, 4)).toString(), 'ell');
    await source.check();
    await writeFile(path, 'other');
    await assert.rejects(source.check(), { code: 'file_changed' });
    await source.close();
    await assert.rejects(NetworkResilientUploader.fromPath(folder), { code: 'file_unreadable' });
    await assert.rejects(NetworkResilientUploader.fromPath(join(folder, 'none')), { code: 'ENOENT' });
  });
});
