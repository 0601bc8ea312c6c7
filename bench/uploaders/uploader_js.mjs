// One upload by uploader.js in Node: node uploader_js.mjs MODULE ENDPOINT SIGNATURE PATH PARALLEL. Prints seconds.
import { pathToFileURL } from 'node:url';

const [module, endpoint, signature, path, parallel] = process.argv.slice(2);
const { NetworkResilientUploader } = await import(pathToFileURL(module).href);
const file = await NetworkResilientUploader.fromPath(path);
const began = performance.now();
await new NetworkResilientUploader(file, endpoint, { signature, parallel: Number(parallel) }).upload();
console.log((performance.now() - began) / 1000);
