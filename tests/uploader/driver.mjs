// One upload by uploader.js in Node: node driver.mjs JOB.json, whose members are those of `Job` in uploading.py.
// Every event is a line of JSON on the standard output, and so is the end. Words on the standard input are orders.
import { createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const job = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const { NetworkResilientUploader, FileStore } = await import(pathToFileURL(job.module));
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const told = (error) => ({
  name: error.name, code: error.code, status: error.status, retriable: error.retriable, detail: error.detail,
  retryAfter: error.retryAfter, message: error.message,
});

const options = { ...job.options, ...(job.store ? { store: new FileStore(job.store) } : {}) };
if (job.secret) {
  // A strong X-Signature, of docs/authentication.md.
  options.headers = ({ method, path, filename, size }) => {
    const expires = String(Math.floor(Date.now() / 1000) + 60);
    const text = ['hmac-file-server X-Signature 2', method, path, filename, size, expires].join('\0');
    const signature = createHmac('sha256', job.secret).update(text).digest('hex');
    return { 'X-Signature': signature, 'X-Signature-Expires': expires };
  };
}
const abortion = new AbortController();
if (job.abortable) options.signal = abortion.signal;
const uploader = new NetworkResilientUploader(await NetworkResilientUploader.fromPath(job.path), job.endpoint, options);
for (const name of ['start', 'progress', 'chunk', 'retry', 'pause', 'resume', 'offline', 'online', 'stall', 'state', 'done', 'error']) {
  uploader.addEventListener(name, ({ detail }) => {
    const { error, ...rest } = detail;
    say({ event: name, at: performance.now(), ...rest, ...(error ? { error: told(error) } : {}) });
  });
}
const orders = createInterface({ input: process.stdin });
orders.on('line', (line) => {
  if (line === 'pause') uploader.pause();
  if (line === 'resume') uploader.resume();
  if (line === 'signal') abortion.abort();
  if (line === 'abort') uploader.abort();
  if (line === 'discard') uploader.abort({ discard: true }).then(() => say({ discarded: true }));
});
try {
  const result = await uploader.upload();
  // What getrusage tells has the memory of the process that started this one in it.
  const [, memory] = /VmHWM:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'));
  say({ result, memory: Number(memory) * 1024 });
} catch (error) {
  say({ failure: told(error), state: uploader.state });
}
orders.close();
