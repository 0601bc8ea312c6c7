// One upload by our uploader.js in Node: node uploader.mjs MODULE JOB.json. Its events are lines on standard output.
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const [module, path] = process.argv.slice(2);
const job = JSON.parse(readFileSync(path, 'utf8'));
const { NetworkResilientUploader } = await import(pathToFileURL(module).href);
const say = (line) => console.log(JSON.stringify(line));

const file = await NetworkResilientUploader.fromPath(job.path);
const uploader = new NetworkResilientUploader(file, job.chunked, {
  headers: job.chunkedFields,
  maxRetries: Infinity,
});
for (const event of ['retry', 'stall', 'offline', 'online']) {
  uploader.addEventListener(event, ({ detail }) => say({ event, error: detail?.error?.message, at: performance.now() }));
}
const result = await uploader.upload();
say({ done: result.url });
