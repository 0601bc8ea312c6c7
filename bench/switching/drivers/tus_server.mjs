// @tus/server with its file store, as its README starts it: node tus_server.mjs PACKAGES FOLDER HOST PORT
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [packages, directory, host, port] = process.argv.slice(2);
const require = createRequire(`${packages}/package.json`);
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
const { Server } = await load('@tus/server');
const { FileStore } = await load('@tus/file-store');

const server = new Server({ path: '/tus', datastore: new FileStore({ directory }) });
server.listen({ host, port: Number(port) });
