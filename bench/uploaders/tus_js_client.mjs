// One upload by tus-js-client with its defaults: node tus_js_client.mjs PACKAGES ENDPOINT PATH. Prints seconds.
import { createReadStream } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [packages, endpoint, path] = process.argv.slice(2);
const require = createRequire(`${packages}/package.json`);
const { Upload } = await import(pathToFileURL(require.resolve('tus-js-client')).href);
const began = performance.now();
await new Promise((onSuccess, onError) => {
  new Upload(createReadStream(path), { endpoint, metadata: { filename: 'bench.bin' }, onSuccess, onError }).start();
});
console.log((performance.now() - began) / 1000);
