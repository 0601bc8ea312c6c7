// Goes below the guide's class in one script: node SCRIPT ENDPOINT PATH NAME
const [endpoint, path, name] = process.argv.slice(2);
const file = new Blob([require('node:fs').readFileSync(path)]);
Object.defineProperty(file, 'name', { value: name });
new NetworkResilientUploader(file, endpoint).upload().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
