// A page with Uppy on it. What it is told stands behind the # of its URL, so that it survives a reload:
// endpoint and headers of the uploads, options of the tus plug-in, and whether Golden Retriever keeps what is unfinished.
import Uppy from '@uppy/core';
import GoldenRetriever from '@uppy/golden-retriever';
import Tus from '@uppy/tus';

const told = JSON.parse(decodeURIComponent(window.location.hash.slice(1)));
const uppy = new Uppy();
uppy.use(Tus, { endpoint: told.endpoint, headers: told.headers, ...told.options });
if (told.retrieve) {
  uppy.use(GoldenRetriever);
  uppy.on('restored', () => uppy.emit('restore-confirmed'));
}

window.outcome = null;
uppy.on('complete', ({ successful, failed }) => {
  window.outcome = {
    urls: successful.map((file) => file.uploadURL),
    errors: failed.map((file) => file.error),
  };
});

window.isPaused = () => uppy.getPlugin('Tus').requests.isPaused;

const all = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

// Whether Golden Retriever has stored the file and the URL of its upload.
window.isKept = async () => {
  const database = await all(indexedDB.open('uppy-blobs'));
  try {
    const stores = database.transaction(['files', 'metadata']);
    const files = await all(stores.objectStore('files').getAll());
    const [record] = await all(stores.objectStore('metadata').getAll());
    return files.length === 1 && record !== undefined && record.metadata.includes('"uploadUrl":"http');
  } finally {
    database.close();
  }
};

const input = document.querySelector('input');
input.addEventListener('change', () => {
  for (const file of input.files) {
    uppy.addFile({ name: file.name, type: file.type, data: file });
  }
  uppy.upload();
});
