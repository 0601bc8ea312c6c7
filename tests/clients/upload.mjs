// One upload by tus-js-client in Node: node upload.mjs JOB.json, whose members are those of `Job` in tus_js_client.py.
// Every request is a line of JSON on the standard output, and so is the end.
import { readFileSync, createReadStream } from 'node:fs';
import { Readable } from 'node:stream';
import * as tus from 'tus-js-client';

const job = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const say = (line) => console.log(JSON.stringify(line));

function pieces(path) {
  // Not one of fs: only of those would the client find out how long the file is.
  return Readable.from(createReadStream(path, { highWaterMark: 50_000 }), { objectMode: false });
}

const inputs = {
  buffer: (path) => readFileSync(path),
  file: (path) => createReadStream(path),
  stream: pieces,
};
const storage = job.storage ? { urlStorage: new tus.FileUrlStorage(job.storage) } : {};
const upload = new tus.Upload(inputs[job.input](job.path), {
  ...job.options,
  ...storage,
  onAfterResponse: (request, response) => {
    say({
      method: request.getMethod(),
      url: request.getURL(),
      status: response.getStatus(),
      headers: response.getUnderlyingObject().headers,
      body: response.getBody(),
    });
  },
  onChunkComplete: (size, accepted) => {
    if (job.stopAt && accepted >= job.stopAt) {
      upload.abort(job.terminate).then(() => say({ stopped: upload.url, offset: accepted }));
    }
  },
  onSuccess: () => say({ done: upload.url }),
  onError: (error) => {
    console.error(error);
    process.exitCode = 1;
  },
});
const previous = job.storage ? await upload.findPreviousUploads() : [];
if (previous.length > 0) {
  upload.resumeFromPreviousUpload(previous[0]);
}
upload.start();
