// @ts-check
/**
 * The upload page: what a person with an upload link (`/#ticket=...`) sees. See docs/upload-page.md.
 *
 * A {@link Link} is what was permitted, a {@link Job} one file on its way, {@link Memory} what of it survives a
 * reload, a {@link Row} how it looks. {@link Page} holds them together. Bytes are moved by uploader.js alone.
 */

import { IndexedDBStore, NetworkResilientUploader } from './uploader.js';
import { Texts } from './upload-texts.js';

/** Files that are uploaded at the same time. Browsers open six connections to a server, and some must stay free. */
const FILES_AT_ONCE = 3;
/** Chunks of a file at the same time, when it has the network to itself and when it has not. */
const PARALLEL_ALONE = 4;
const PARALLEL_SHARED = 2;
/** How often the server is asked to end an upload that was removed. */
const DELETE_ATTEMPTS = 3;
/** Milliseconds between two notes of how far a file is. */
const NOTE_EVERY = 1000;
/** Milliseconds for which a lower number is not believed. */
const FALL_AFTER = 3000;
/** Milliseconds between two spoken reports of the progress, and the share that it must have made meanwhile. */
const SPEAK_EVERY = 15_000;
const SPEAK_STEP = 0.1;
/** Milliseconds for which the page waits to be told what time it is. */
const CLOCK_PATIENCE = 5000;
/** Milliseconds in which a browser tells at least once that something is held over the page. */
const DRAG_TOLD_EVERY = 1000;
/** Names that are told one by one when files are refused. */
const REFUSALS_TOLD = 5;
/** Bytes of an address that the server makes a QR code of. */
const QR_BYTES = 512;
/** Days for which the page remembers what was uploaded. */
const REMEMBERED_DAYS = 30;
const TICKET_KEY = 'hmac-file-server-ticket';
/** Codes of the server (docs/errors.md) after which nothing more can begin with the link. */
const LINK_ENDS = /** @type {Readonly<Record<string, 'expired' | 'used-up' | 'bad' | 'wrong'>>} */ ({
  token_expired: 'expired',
  ticket_used_up: 'used-up',
  bad_token: 'bad',
  malformed_credentials: 'bad',
  missing_credentials: 'bad',
  operation_not_allowed: 'wrong',
  scheme_disabled: 'wrong',
});
/** Codes after which an upload can only be begun anew. */
const BEGIN_ANEW = new Set(['upload_expired', 'upload_lost', 'upload_not_found', 'upload_overrun']);

/**
 * @typedef {import('./upload-texts.js').TextKey} TextKey
 * @typedef {import('./upload-texts.js').Values} Values
 * @typedef {'queued' | 'running' | 'paused' | 'resumable' | 'done' | 'failed'} Phase
 * @typedef {{file: File, handle: FileSystemFileHandle | null, folder: string}} Found
 * @typedef {object} Note what is kept of a file
 * @property {string} id
 * @property {string} ticket
 * @property {string} name
 * @property {string} folder path of the folder that it was chosen with, or ''
 * @property {number} size bytes
 * @property {string} type media type, or ''
 * @property {number} modified milliseconds since the epoch
 * @property {number} added milliseconds since the epoch
 * @property {FileSystemFileHandle | null} handle where the browser has one
 * @property {string | null} sessionId
 * @property {number} acknowledged bytes
 * @property {boolean} paused by the person
 * @property {string | null} url absolute; null until it is done
 */

const texts = new Texts(navigator.languages ?? [navigator.language]);
/** @type {(key: TextKey, values?: Values) => string} */
const say = (key, values) => texts.say(key, values);

// ---- elements

/**
 * An element of the page's own HTML.
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} type
 * @returns {T}
 */
function element(id, type) {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new Error(`index.html has no #${id}`);
  return found;
}

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {string} className
 * @param {...(Node | string)} content
 * @returns {HTMLElementTagNameMap[T]}
 */
function make(tag, className, ...content) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...content);
  return made;
}

/** Sets a text only where it changed, so that nothing is laid out or read out again for nothing.
 * @param {HTMLElement} node
 * @param {string} text
 */
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const ICONS = {
  upload: 'M12 16V4M7 9l5-5 5 5M4 16v2a3 3 0 0 0 3 3h10a3 3 0 0 0 3-3v-2',
  file: 'M14 3H7a2 2 0 0 0-2 2v14a2 2 0 0 0 2 2h10a2 2 0 0 0 2-2V8zM14 3v5h5',
  folder: 'M3 7a2 2 0 0 1 2-2h4l2 2h8a2 2 0 0 1 2 2v8a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2z',
  pause: 'M9 5v14M15 5v14',
  play: 'M8 4.5v15l11-7.5z',
  close: 'M6 6l12 12M18 6L6 18',
  retry: 'M20 5v6h-6M19.4 15A8 8 0 1 1 20 11',
  check: 'M5 12.5l4.5 4.5L19 7',
  link: 'M10 14a4.5 4.5 0 0 0 6.4 0l3.2-3.2a4.5 4.5 0 0 0-6.4-6.4l-1.4 1.4M14 10a4.5 4.5 0 0 0-6.4 0l-3.2 3.2a4.5 4.5 0 0 0 6.4 6.4l1.4-1.4',
  qr: 'M4 4h6v6H4zM14 4h6v6h-6zM4 14h6v6H4zM14 14v2.5M20 14v1M17.5 17v3M14 20h.01M20 18.5V20h-.5M17 14h.01',
  offline: 'M3 3l18 18M8.5 16.3a5 5 0 0 1 7 0M5 12.8a10 10 0 0 1 5.2-2.7M19 12.8a10 10 0 0 0-2.8-1.9M2 9.2a15 15 0 0 1 4.2-2.7M22 9.2A15 15 0 0 0 11 5M12 20h.01',
  alert: 'M12 4l9.5 16.5h-19zM12 10.5v4M12 17.5h.01',
  clock: 'M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM12 7v5l3.2 2',
  info: 'M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM12 11.5V16M12 8h.01',
};
/** @typedef {keyof typeof ICONS} IconName */

const SVG = 'http://www.w3.org/2000/svg';

/**
 * A drawing of 24 units a side in the colour of the text around it; it says nothing to a screen reader.
 * @param {IconName} name
 */
function icon(name) {
  const drawing = document.createElementNS(SVG, 'svg');
  drawing.setAttribute('viewBox', '0 0 24 24');
  drawing.setAttribute('class', 'icon');
  drawing.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(SVG, 'path');
  path.setAttribute('d', ICONS[name]);
  drawing.append(path);
  return drawing;
}

/**
 * Sets picture, text and name of a button. `bare` ones show their text as a tooltip only.
 * @param {HTMLButtonElement} button
 * @param {IconName} picture
 * @param {string} label
 * @param {{name?: string, bare?: boolean}} [options] `name`: the file that it is for
 */
function dress(button, picture, label, { name = '', bare = false } = {}) {
  const wear = `${picture} ${label} ${name}`;
  if (button.dataset['wear'] === wear) return;
  button.dataset['wear'] = wear;
  button.replaceChildren(icon(picture), ...(bare ? [] : [make('span', 'label', label)]));
  if (name || bare) button.setAttribute('aria-label', name ? say('forFile', { action: label, name }) : label);
  if (bare) button.title = label;
}

/**
 * @param {string} className
 * @param {() => void} action
 */
function makeButton(className, action) {
  const button = make('button', `button ${className}`);
  button.type = 'button';
  button.addEventListener('click', action);
  return button;
}

// ---- the link

/** An upload link: its ticket, and what it says that it permits. The server alone decides; this is for people. */
class Link {
  /**
   * @param {string} ticket
   * @param {Record<string, unknown>} claims
   */
  constructor(ticket, claims) {
    const number = (/** @type {string} */ name) => {
      const value = claims[name];
      return typeof value === 'number' && Number.isFinite(value) ? value : null;
    };
    this.ticket = ticket;
    /** Bytes of the largest file. */
    this.maxSize = number('max_size');
    /** How many files it takes in all. */
    this.files = typeof claims['path'] === 'string' ? 1 : number('files');
    /** Seconds since the epoch. */
    this.expires = number('exp');
    this.type = typeof claims['type'] === 'string' ? claims['type'] : null;
    const operations = claims['ops'];
    /** @type {'good' | 'expired' | 'used-up' | 'bad' | 'wrong'} */
    this.state = Array.isArray(operations) && !operations.includes('create') ? 'wrong' : 'good';
  }

  /**
   * The link in a fragment (`#ticket=...`); null where there is none. What is no token is a link that is no good.
   * @param {string} ticket
   */
  static parse(ticket) {
    try {
      const payload = /^[\w-]+\.([\w-]+)\.[\w-]+$/.exec(ticket)?.[1] ?? '';
      const bytes = Uint8Array.from(atob(payload.replace(/-/g, '+').replace(/_/g, '/')), (c) => c.charCodeAt(0));
      const claims = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
      if (typeof claims === 'object' && claims !== null) return new Link(ticket, claims);
    } catch {
      // Not a token: said below.
    }
    const link = new Link(ticket, {});
    link.state = 'bad';
    return link;
  }
}

/** @param {string} fragment @returns {string | null} */
function ticketIn(fragment) {
  return new URLSearchParams(fragment.replace(/^#/, '').replace(/\+/g, '%2B')).get('ticket');
}

/**
 * The ticket in the address, or of before the page was loaded anew. It leaves the address, and with it the history,
 * screenshots and shoulders, only where the page will find it again.
 * @returns {string | null}
 */
function takeTicket() {
  const ticket = ticketIn(location.hash);
  try {
    if (ticket === null) return sessionStorage.getItem(TICKET_KEY);
    sessionStorage.setItem(TICKET_KEY, ticket);
    if (sessionStorage.getItem(TICKET_KEY) === ticket) {
      history.replaceState(history.state, '', location.pathname + location.search);
    }
  } catch {
    // No storage here: the address keeps it.
  }
  return ticket;
}

// ---- what survives a reload

/** The notes of all files, in IndexedDB, or in nothing where there is none (private windows of some browsers). */
class Memory {
  /** @param {IDBDatabase | null} database */
  constructor(database) {
    this.database = database;
  }

  /** @returns {Promise<Memory>} */
  static open() {
    return new Promise((resolve) => {
      try {
        const request = indexedDB.open('hmac-file-server-page', 1);
        request.onupgradeneeded = () => request.result.createObjectStore('files', { keyPath: 'id' });
        request.onsuccess = () => resolve(new Memory(request.result));
        request.onerror = () => resolve(new Memory(null));
      } catch {
        resolve(new Memory(null));
      }
    });
  }

  /** @returns {Promise<Note[]>} */
  all() {
    return this.run('readonly', (files) => files.getAll(), []);
  }

  /** @param {string} id @returns {Promise<Note | undefined>} */
  get(id) {
    return this.run('readonly', (files) => files.get(id), undefined);
  }

  /** @param {Note} note */
  async put(note) {
    try {
      await this.run('readwrite', (files) => files.put(note), undefined);
    } catch {
      // Some browsers cannot keep a handle.
      await this.run('readwrite', (files) => files.put({ ...note, handle: null }), undefined).catch(() => undefined);
    }
  }

  /** @param {string} id */
  async delete(id) {
    await this.run('readwrite', (files) => files.delete(id), undefined).catch(() => undefined);
  }

  /**
   * @template T
   * @param {IDBTransactionMode} mode
   * @param {(files: IDBObjectStore) => IDBRequest} order
   * @param {T} nothing the answer where there is no database
   * @returns {Promise<T>}
   */
  run(mode, order, nothing) {
    const database = this.database;
    if (database === null) return Promise.resolve(nothing);
    return new Promise((resolve, reject) => {
      const request = order(database.transaction('files', mode).objectStore('files'));
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  }
}

/**
 * Runs `use` once no other window has this file, and keeps it from others until the returned function is called or
 * the window is gone. Where there are no locks (pages without TLS) it runs at once.
 * @param {string} id
 * @param {() => void} use
 * @returns {() => void}
 */
function claim(id, use) {
  let release = () => {};
  /** @type {Promise<void>} */
  const released = new Promise((resolve) => {
    release = resolve;
  });
  if (navigator.locks) {
    void navigator.locks.request(`hmac-file-server-page ${id}`, () => {
      use();
      return released;
    });
  } else {
    use();
  }
  return release;
}

// ---- finding files

/**
 * May a kept handle be read? `ask` needs a click of the person.
 * @param {FileSystemFileHandle} handle
 * @param {boolean} ask
 */
async function readable(handle, ask) {
  const asked = /** @type {{queryPermission?: Function, requestPermission?: Function}} */ (/** @type {unknown} */ (handle));
  try {
    if (typeof asked.queryPermission !== 'function') return true;
    if ((await asked.queryPermission({ mode: 'read' })) === 'granted') return true;
    return ask && (await asked.requestPermission?.({ mode: 'read' })) === 'granted';
  } catch {
    return false;
  }
}

/**
 * Everything in a folder, by handles: these can be kept.
 * @param {FileSystemHandle} handle
 * @param {string} folder
 * @returns {AsyncGenerator<Found>}
 */
async function* filesOfHandle(handle, folder) {
  if (handle instanceof FileSystemFileHandle) {
    yield { file: await handle.getFile(), handle, folder };
  } else if (handle instanceof FileSystemDirectoryHandle) {
    const children = /** @type {{values(): AsyncIterable<FileSystemHandle>}} */ (/** @type {unknown} */ (handle));
    for await (const child of children.values()) yield* filesOfHandle(child, join(folder, handle.name));
  }
}

/**
 * Everything in a folder, by entries: for browsers without handles.
 * @param {FileSystemEntry} entry
 * @param {string} folder
 * @returns {AsyncGenerator<Found>}
 */
async function* filesOfEntry(entry, folder) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => {
      /** @type {FileSystemFileEntry} */ (entry).file(resolve, reject);
    });
    yield { file, handle: null, folder };
    return;
  }
  const reader = /** @type {FileSystemDirectoryEntry} */ (entry).createReader();
  for (;;) {
    /** @type {FileSystemEntry[]} */
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) return;
    for (const child of some) yield* filesOfEntry(child, join(folder, entry.name));
  }
}

/**
 * What was dropped. The list must be asked before anything is awaited: it is empty afterwards.
 * @param {DataTransfer} transfer
 * @returns {Promise<{found: Found[], unreadable: string[]}>}
 */
async function filesDropped(transfer) {
  const items = [...transfer.items].filter((item) => item.kind === 'file').map((item) => ({
    file: item.getAsFile(),
    entry: item.webkitGetAsEntry?.() ?? null,
    handle: handleOf(item),
  }));
  /** @type {Found[]} */
  const found = [];
  /** @type {string[]} */
  const unreadable = [];
  for (const { file, entry, handle } of items) {
    try {
      const kept = await handle.catch(() => null);
      if (kept !== null) {
        for await (const one of filesOfHandle(kept, '')) found.push(one);
      } else if (entry?.isDirectory) {
        for await (const one of filesOfEntry(entry, '')) found.push(one);
      } else if (file !== null) {
        found.push({ file, handle: null, folder: '' });
      }
    } catch {
      unreadable.push(file?.name ?? entry?.name ?? '?');
    }
  }
  return { found, unreadable };
}

/** @param {DataTransferItem} item @returns {Promise<FileSystemHandle | null>} */
function handleOf(item) {
  const source = /** @type {{getAsFileSystemHandle?: () => Promise<FileSystemHandle | null>}} */ (
    /** @type {unknown} */ (item)
  );
  return source.getAsFileSystemHandle?.() ?? Promise.resolve(null);
}

/** @param {FileList | readonly File[]} files @returns {Found[]} */
function filesChosen(files) {
  return [...files].map((file) => ({
    file,
    handle: null,
    folder: file.webkitRelativePath.split('/').slice(0, -1).join('/'),
  }));
}

/** @param {string} folder @param {string} name */
function join(folder, name) {
  return folder ? `${folder}/${name}` : name;
}

// ---- one file

const endpoint = new URL('upload/chunked', document.baseURI);
endpoint.hash = '';
const store = new IndexedDBStore();

/**
 * Where a file is for the world. The server tells its own path; the page is at the server's root, wherever a proxy
 * offers that.
 * @param {string} url as the server, or uploader.js, tells it
 */
function addressOf(url) {
  const { pathname, search } = new URL(url, endpoint);
  return new URL(`.${pathname}${search}`, new URL('.', document.baseURI)).href;
}

/** One file on its way. */
class Job {
  /**
   * @param {Page} page
   * @param {Note} note
   * @param {File | null} file null where it must be chosen again
   * @param {() => void} release gives the file free for other windows
   */
  constructor(page, note, file, release) {
    this.page = page;
    this.note = note;
    this.file = file;
    this.release = release;
    /** @type {Phase} */
    this.phase = note.url !== null ? 'done' : 'resumable';
    /** @type {NetworkResilientUploader | null} */
    this.uploader = null;
    this.sent = note.acknowledged;
    this.rate = 0;
    /** @type {number | null} */
    this.secondsLeft = null;
    /** @type {unknown} */
    this.error = null;
    /** Milliseconds since the epoch, while an attempt is waited for. */
    this.retryAt = 0;
    this.attempt = 0;
    this.noted = 0;
    this.moved = 0;
    this.row = new Row(this);
  }

  /** What uploader.js knows it by: one and the same file may be in several folders. */
  get fingerprint() {
    return `upload-page ${this.note.id}`;
  }

  get name() {
    return this.note.name;
  }

  get size() {
    return this.note.size;
  }

  /** Bytes that count for the progress: what is on its way too, but never the whole of what is not done. */
  get shown() {
    return this.phase === 'done' ? this.size : Math.min(this.size, Math.max(this.note.acknowledged, this.sent));
  }

  /** Of the whole, 0 to 1. */
  get share() {
    if (this.phase === 'done') return 1;
    return this.size === 0 ? 0 : this.shown / this.size;
  }

  /** What it is doing: the state of uploader.js while it runs, else its own. */
  get state() {
    if (this.phase !== 'running') return this.phase;
    // The browser knows first, but it is wrong now and then: what moves has a network.
    if (navigator.onLine === false && Date.now() - this.moved > NOTE_EVERY) return 'offline';
    return this.uploader?.state ?? 'starting';
  }

  /** Does something happen by itself? */
  get busy() {
    return this.phase === 'running' || this.phase === 'queued';
  }

  /** Go on from where it is, as soon as there is a place. */
  queue() {
    this.phase = 'queued';
    this.error = null;
    this.note.paused = false;
    void this.keep();
    this.page.next();
  }

  /** @param {number} parallel chunks at the same time */
  start(parallel) {
    if (this.file === null) return;
    this.phase = 'running';
    if (this.uploader !== null) {
      this.uploader.resume();
      return;
    }
    const uploader = new NetworkResilientUploader(this.file, endpoint.href, {
      name: this.name,
      type: this.note.type,
      ticket: this.note.ticket,
      // Where the server is strict, what follows must be permitted as well; elsewhere it does not look.
      signChunks: true,
      maxRetries: Infinity,
      parallel,
      store,
      fingerprint: () => this.fingerprint,
    });
    this.uploader = uploader;
    this.listen(uploader);
    uploader.upload().then(
      (result) => this.finish(uploader, result.url),
      (error) => this.fail(uploader, error),
    );
  }

  /** @param {NetworkResilientUploader} uploader */
  listen(uploader) {
    /** @type {(name: string, use: (detail: any) => void) => void} */
    const on = (name, use) => {
      uploader.addEventListener(name, (event) => {
        if (this.uploader !== uploader) return;
        use(/** @type {CustomEvent} */ (event).detail);
        this.page.changed();
      });
    };
    on('start', ({ sessionId, acknowledged }) => {
      this.note.sessionId = sessionId;
      this.note.acknowledged = this.sent = acknowledged ?? 0;
      void this.keep();
    });
    on('progress', ({ sent, acknowledged, rate, secondsLeft }) => {
      if (acknowledged > this.note.acknowledged) this.attempt = 0;
      this.note.acknowledged = acknowledged;
      this.move(sent);
      this.rate = rate;
      this.secondsLeft = secondsLeft;
      if (Date.now() - this.noted >= NOTE_EVERY) void this.keep();
    });
    on('retry', ({ error, attempt, delay }) => {
      this.error = error;
      this.attempt = attempt;
      this.retryAt = Date.now() + delay;
    });
    for (const name of ['chunk', 'pause', 'resume', 'offline', 'online', 'stall']) on(name, () => {});
  }

  /**
   * A new number of bytes on the way. A connection that ends takes some with it that the server has all the same, so
   * what is shown does not fall before that is known.
   * @param {number} sent
   */
  move(sent) {
    const now = Date.now();
    if (sent > this.sent) this.moved = now;
    if (sent > this.sent || (this.uploader?.state === 'uploading' && now - this.moved > FALL_AFTER)) this.sent = sent;
  }

  pause() {
    if (!this.busy) return;
    this.uploader?.pause();
    this.phase = 'paused';
    this.note.paused = true;
    this.rate = 0;
    void this.ask();
    void this.keep();
    this.page.next();
  }

  /**
   * @param {NetworkResilientUploader} uploader
   * @param {string} url
   */
  finish(uploader, url) {
    if (this.uploader !== uploader) return;
    this.uploader = null;
    this.file = null;
    this.phase = 'done';
    this.rate = 0;
    this.note.acknowledged = this.size;
    this.note.url = addressOf(url);
    this.note.handle = null;
    void this.keep();
    this.page.finished(this);
  }

  /**
   * @param {NetworkResilientUploader} uploader
   * @param {unknown} error
   */
  fail(uploader, error) {
    if (this.uploader !== uploader) return;
    this.uploader = null;
    this.giveUp(error);
  }

  /** @param {unknown} error */
  giveUp(error) {
    this.phase = 'failed';
    this.error = error;
    this.rate = 0;
    const code = codeOf(error);
    if (code !== null && BEGIN_ANEW.has(code)) {
      this.note.sessionId = null;
      this.note.acknowledged = this.sent = 0;
      void store.delete(this.fingerprint);
    }
    void this.keep();
    this.page.failed(this);
  }

  /** Take the upload back, on the server too. */
  async drop() {
    const { uploader, note } = this;
    this.uploader = null;
    this.phase = 'failed';
    this.release();
    await this.page.memory.delete(note.id);
    if (note.url !== null) return;
    if (uploader !== null) {
      await uploader.abort({ discard: true });
    } else if (note.sessionId !== null) {
      const headers = { 'X-Upload-Session-ID': note.sessionId, Authorization: `Bearer ${note.ticket}` };
      for (let attempt = 0; attempt < DELETE_ATTEMPTS; attempt += 1) {
        const answer = await fetch(endpoint, { method: 'DELETE', headers, keepalive: true }).catch(() => null);
        // Late requests of the upload may still be in its way. What cannot be ended now ends by itself some day.
        if (answer !== null && answer.status !== 409) break;
        await new Promise((resolve) => setTimeout(resolve, NOTE_EVERY));
      }
    }
    await store.delete(this.fingerprint);
  }

  /** Note how far it is. */
  async keep() {
    this.noted = Date.now();
    await this.page.memory.put(this.note);
  }

  /**
   * Is this the file that was begun?
   * @param {File} file
   */
  fits(file) {
    return file.size === this.size && file.lastModified === this.note.modified;
  }

  /** @param {File} file @param {FileSystemFileHandle | null} handle */
  attach(file, handle) {
    this.file = file;
    if (handle !== null) this.note.handle = handle;
    this.queue();
  }

  /**
   * While nothing runs: what does the server have by now? It is the one to know, as the last answers may be lost.
   * @returns {Promise<void>}
   */
  async ask() {
    const { note, phase } = this;
    if (note.sessionId === null || note.url !== null) return;
    try {
      const address = new URL('status', endpoint);
      address.searchParams.set('session_id', note.sessionId);
      const answer = await fetch(address, { headers: { Authorization: `Bearer ${note.ticket}` }, cache: 'no-store' });
      /** @type {{uploaded_bytes?: unknown, completed?: unknown, url?: unknown}} */
      const status = answer.ok ? await answer.json() : {};
      if (this.phase !== phase) return;
      if (answer.ok) {
        note.acknowledged = this.sent = Number(status.uploaded_bytes) || 0;
        if (status.completed === true && typeof status.url === 'string' && this.uploader === null) {
          note.url = addressOf(status.url);
          note.handle = null;
          this.phase = 'done';
          void store.delete(this.fingerprint);
        }
      } else if (answer.status === 404 || answer.status === 410) {
        note.acknowledged = this.sent = 0;
        if (this.uploader === null) {
          note.sessionId = null;
          void store.delete(this.fingerprint);
        }
      }
      void this.keep();
      this.page.changed();
    } catch {
      // No network: what was acknowledged is certain.
      if (this.phase === phase) this.sent = note.acknowledged;
      this.page.changed();
    }
  }
}

/** @param {unknown} error @returns {string | null} */
function codeOf(error) {
  const code = /** @type {{code?: unknown} | null} */ (error)?.code;
  return typeof code === 'string' ? code : null;
}

/**
 * What went wrong, in words.
 * @param {unknown} error
 */
function reasonOf(error) {
  const code = codeOf(error);
  const known = code === null ? undefined : texts.failure(code);
  if (known !== undefined) return known;
  const told = /** @type {{status?: unknown, detail?: unknown, requestId?: unknown, message?: unknown}} */ (error ?? {});
  if (typeof told.status !== 'number' || told.status === 0) {
    return say('failureUnknown', { detail: String(told.detail || told.message || error) });
  }
  const sentences = [say('failure', { code: code ?? String(told.status) })];
  if (typeof told.requestId === 'string' && told.requestId) {
    sentences.push(say('failureNumber', { request: told.requestId }));
  }
  return sentences.join(' ');
}

// ---- how a file looks

/** One line of the list. */
class Row {
  /** @param {Job} job */
  constructor(job) {
    this.job = job;
    this.picture = make('span', 'file-icon');
    this.title = make('span', 'file-name');
    this.title.id = `name-${job.note.id}`;
    this.folder = make('span', 'file-folder');
    this.bar = make('progress', '');
    this.bar.max = 1;
    this.bar.setAttribute('aria-label', say('fileLabel', { name: job.name }));
    this.status = make('p', 'status');
    this.main = makeButton('small', () => this.act());
    this.qr = makeButton('small', () => job.page.showQr(job));
    this.remove = makeButton('small bare', () => void job.page.remove(job));
    this.node = make(
      'li',
      'file card',
      this.picture,
      make('div', 'file-text', make('p', 'file-title', this.title, this.folder), this.bar, this.status),
      make('div', 'file-actions', this.main, this.qr),
      this.remove,
    );
    this.title.textContent = job.name;
    this.folder.textContent = job.note.folder;
    this.folder.hidden = job.note.folder === '';
    this.qr.hidden = true;
    /** @type {IconName | null} */
    this.drawn = null;
  }

  act() {
    const { job } = this;
    if (job.busy) {
      job.pause();
      job.page.changed();
    } else if (job.phase === 'done') {
      void job.page.copy([job], this.main);
    } else {
      void job.page.goOn(job);
    }
  }

  update() {
    const { job } = this;
    const { state } = job;
    this.node.dataset['state'] = state;
    const share = job.share;
    if (this.bar.value !== share) this.bar.value = share;
    this.bar.hidden = job.phase === 'done';
    write(this.status, this.describe(state));
    this.draw(this.symbol(state));
    this.dressButtons();
  }

  /** @param {string} state @returns {IconName} */
  symbol(state) {
    switch (state) {
      case 'done':
        return 'check';
      case 'failed':
        return 'alert';
      case 'offline':
      case 'waiting':
        return 'offline';
      case 'paused':
      case 'resumable':
        return 'pause';
      case 'queued':
        return 'clock';
      default:
        return 'file';
    }
  }

  /** @param {IconName} name */
  draw(name) {
    if (this.drawn === name) return;
    this.drawn = name;
    this.picture.replaceChildren(icon(name));
  }

  dressButtons() {
    const { job } = this;
    const { name } = job;
    if (job.busy) dress(this.main, 'pause', say('pause'), { name });
    else if (job.phase === 'paused') dress(this.main, 'play', say('resume'), { name });
    else if (job.phase === 'failed') dress(this.main, 'retry', say('retry'), { name });
    else if (job.phase === 'resumable') {
      if (job.file !== null || job.note.handle !== null) dress(this.main, 'play', say('continueUpload'), { name });
      else dress(this.main, 'folder', say('chooseAgain'), { name });
    } else if (this.main.dataset['copied'] === undefined) {
      dress(this.main, 'link', say('copyLink'), { name });
    }
    if (job.phase === 'done' && this.qr.hidden && fitsQr(job.note.url ?? '')) {
      dress(this.qr, 'qr', say('showQr'), { name });
      this.qr.hidden = false;
    }
    dress(this.remove, 'close', say(job.phase === 'done' ? 'hide' : 'remove'), { name, bare: true });
    if (job.phase === 'done' && job.note.url !== null && this.title.firstElementChild === null) {
      const link = make('a', '', job.name);
      link.href = job.note.url;
      link.target = '_blank';
      link.rel = 'noopener';
      this.title.replaceChildren(link);
    }
  }

  /** @param {string} state */
  describe(state) {
    const { job } = this;
    const percent = texts.percent(job.share);
    const waits = Math.max(0, Math.ceil((job.retryAt - Date.now()) / 1000));
    switch (state) {
      case 'queued':
        return parts(say('stateQueued'), texts.size(job.size));
      case 'idle':
      case 'starting':
        return parts(say('stateStarting'), texts.size(job.size));
      case 'offline':
        return parts(percent, say('stateOffline'));
      case 'waiting':
        if (waits === 0) return parts(percent, say('stateWaitingNow'));
        return parts(percent, say(fromServer(job.error) ? 'stateServerTrouble' : 'stateWaiting', { count: waits }));
      case 'paused':
        return parts(say('statePaused', { percent }), texts.size(job.size));
      case 'done':
        return say('stateDone', { size: texts.size(job.size) });
      case 'failed':
        return reasonOf(job.error);
      case 'resumable':
        if (job.file !== null || job.note.handle !== null) return say('stateResumable', { percent });
        return job.note.acknowledged > 0 ? say('stateChooseAgain', { percent }) : say('stateChooseFromStart');
      default:
        if (job.shown >= job.size) return say('stateFinishing');
        return parts(
          say('amount', { sent: texts.size(job.shown), total: texts.size(job.size) }),
          job.rate > 0 ? texts.speed(job.rate) : '',
          job.secondsLeft !== null && job.rate > 0 ? say('left', { time: texts.duration(job.secondsLeft) }) : '',
        );
    }
  }
}

/** @param {...string} some */
function parts(...some) {
  return some.filter(Boolean).join(' · ');
}

/** Did the server itself say so, not the network? @param {unknown} error */
function fromServer(error) {
  const status = /** @type {{status?: unknown} | null} */ (error)?.status;
  return typeof status === 'number' && status > 0;
}

/** @param {string} url */
function fitsQr(url) {
  return new TextEncoder().encode(url).length <= QR_BYTES;
}

// ---- what is said aloud

/** Tells screen readers what happens, at a pace that can be listened to. */
class Announcer {
  /** @param {HTMLElement} region */
  constructor(region) {
    this.region = region;
    /** Newest text by topic: what is outdated is not said. @type {Map<string, string>} */
    this.waiting = new Map();
    this.timer = 0;
    this.spoken = 0;
    this.spokenShare = 0;
  }

  /** @param {string} topic @param {string} text */
  say(topic, text) {
    this.waiting.delete(topic);
    this.waiting.set(topic, text);
    if (this.timer === 0) this.timer = window.setTimeout(() => this.flush(), 700);
  }

  flush() {
    this.timer = 0;
    write(this.region, [...this.waiting.values()].join(' '));
    this.waiting.clear();
  }

  /**
   * Now and then, how far everything is.
   * @param {number} share
   * @param {() => string} text
   */
  progress(share, text) {
    const now = Date.now();
    if (share < this.spokenShare) this.spokenShare = share;
    if (now - this.spoken < SPEAK_EVERY || share - this.spokenShare < SPEAK_STEP) return;
    this.spoken = now;
    this.spokenShare = share;
    this.say('progress', text());
  }
}

// ---- the page

class Page {
  /** @param {Memory} memory */
  constructor(memory) {
    this.memory = memory;
    /** @type {Job[]} */
    this.jobs = [];
    /** @type {Link | null} */
    this.link = null;
    this.expiry = 0;
    this.frame = 0;
    this.clock = 0;
    /** @type {WakeLockSentinel | null} */
    this.wakeLock = null;
    this.wanted = false;
    /** @type {Job | null} The one whose file is being chosen again. */
    this.choosing = null;
    this.announcer = new Announcer(element('announcer', HTMLElement));
    this.ui = {
      page: element('page', HTMLElement),
      notices: element('notices', HTMLElement),
      explanation: element('explanation', HTMLElement),
      adding: element('adding', HTMLElement),
      intro: element('intro', HTMLElement),
      limits: element('limits', HTMLElement),
      zone: element('zone', HTMLElement),
      zoneText: element('zone-text', HTMLElement),
      chooseFiles: element('choose-files', HTMLButtonElement),
      chooseFolder: element('choose-folder', HTMLButtonElement),
      total: element('total', HTMLElement),
      totalPercent: element('total-percent', HTMLElement),
      totalBar: element('total-progress', HTMLProgressElement),
      totalStatus: element('total-status', HTMLElement),
      pauseAll: element('pause-all', HTMLButtonElement),
      retryAll: element('retry-all', HTMLButtonElement),
      copyAll: element('copy-all', HTMLButtonElement),
      clearDone: element('clear-done', HTMLButtonElement),
      files: element('files', HTMLElement),
      list: element('list', HTMLElement),
      inputFiles: element('input-files', HTMLInputElement),
      inputFolder: element('input-folder', HTMLInputElement),
      inputAgain: element('input-again', HTMLInputElement),
      curtain: element('curtain', HTMLElement),
      curtainText: element('curtain-text', HTMLElement),
      dialog: element('dialog', HTMLDialogElement),
    };
  }

  /** Everything that is there before the first file. */
  async open() {
    const { ui } = this;
    document.documentElement.lang = texts.language;
    for (const node of document.querySelectorAll('[data-text]')) {
      if (node instanceof HTMLElement) node.textContent = say(/** @type {TextKey} */ (node.dataset['text']));
    }
    element('zone-icon', HTMLElement).append(icon('upload'));
    dress(ui.chooseFiles, 'file', say('chooseFiles'));
    dress(ui.chooseFolder, 'folder', say('chooseFolder'));
    dress(ui.retryAll, 'retry', say('retryAll'));
    dress(ui.copyAll, 'link', say('copyAll'));
    dress(ui.clearDone, 'close', say('clearDone'));
    ui.chooseFolder.hidden = !('webkitdirectory' in ui.inputFolder);
    ui.totalBar.setAttribute('aria-label', say('totalLabel'));
    ui.limits.setAttribute('aria-label', say('limitsLabel'));
    this.listen();
    this.setLink(takeTicket());
    ui.page.hidden = false;
    if (this.memory.database === null) this.notice('memory', { kind: 'warn', lines: [say('noMemory')] });
    await this.recall();
    this.changed();
  }

  listen() {
    const { ui } = this;
    ui.chooseFiles.addEventListener('click', () => void this.choose());
    ui.chooseFolder.addEventListener('click', () => ui.inputFolder.click());
    ui.pauseAll.addEventListener('click', () => this.toggleAll());
    ui.retryAll.addEventListener('click', () => {
      for (const job of this.jobs.filter((one) => one.phase === 'failed' && one.file !== null)) job.queue();
      this.changed();
    });
    ui.copyAll.addEventListener('click', () => void this.copy(this.jobs.filter((job) => job.phase === 'done'), ui.copyAll));
    ui.clearDone.addEventListener('click', () => this.clearDone());
    for (const input of [ui.inputFiles, ui.inputFolder]) {
      input.addEventListener('change', () => {
        const found = filesChosen(input.files ?? []);
        input.value = '';
        this.add(found, []);
      });
    }
    ui.inputAgain.addEventListener('change', () => {
      const file = ui.inputAgain.files?.[0];
      ui.inputAgain.value = '';
      if (file && this.choosing !== null) this.chosenAgain(this.choosing, file, null);
    });
    const skip = document.querySelector('.skip');
    skip?.addEventListener('click', (event) => {
      // Without the fragment: there may be a ticket in it.
      event.preventDefault();
      ui.files.focus();
    });
    ui.dialog.addEventListener('click', (event) => {
      if (event.target === ui.dialog) ui.dialog.close();
    });
    ui.dialog.addEventListener('close', () => ui.dialog.replaceChildren());
    window.addEventListener('hashchange', () => {
      if (ticketIn(location.hash) !== null) this.setLink(takeTicket());
    });
    window.addEventListener('online', () => {
      if (this.jobs.some((job) => job.busy)) this.announcer.say('network', say('sayOnline'));
      this.changed();
    });
    window.addEventListener('offline', () => {
      if (this.jobs.some((job) => job.busy)) this.announcer.say('network', say('offline'));
      this.changed();
    });
    window.addEventListener('beforeunload', (event) => {
      if (this.jobs.some((job) => job.busy)) event.preventDefault();
    });
    window.addEventListener('pagehide', () => {
      for (const job of this.jobs) if (job.phase === 'running') void job.keep();
    });
    document.addEventListener('visibilitychange', () => void this.stayAwake());
    this.listenToDrops();
  }

  listenToDrops() {
    const { curtain, curtainText } = this.ui;
    const withFiles = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes('Files') ?? false;
    let timer = 0;
    const over = (/** @type {DragEvent} */ event) => {
      if (!withFiles(event) || event.dataTransfer === null) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = this.takes ? 'copy' : 'none';
      write(curtainText, say(this.takes ? 'dropNow' : 'dropNowClosed'));
      curtain.hidden = false;
      // The event comes again and again while something is held over the page; not all ends of that are told.
      clearTimeout(timer);
      timer = window.setTimeout(() => {
        curtain.hidden = true;
      }, DRAG_TOLD_EVERY);
    };
    window.addEventListener('dragenter', over);
    window.addEventListener('dragover', over);
    window.addEventListener('dragleave', (event) => {
      // Nothing is entered in its place: the pointer left the window.
      if (event.relatedTarget === null) curtain.hidden = true;
    });
    window.addEventListener('drop', (event) => {
      curtain.hidden = true;
      if (!withFiles(event) || event.dataTransfer === null) return;
      event.preventDefault();
      if (!this.takes) return;
      void filesDropped(event.dataTransfer).then(({ found, unreadable }) => this.add(found, unreadable));
    });
    window.addEventListener('paste', (event) => {
      const files = event.clipboardData?.files;
      if (files === undefined || files.length === 0 || !this.takes) return;
      event.preventDefault();
      this.add(filesChosen(files), []);
    });
  }

  /** Is there anything that a file could be for? */
  get takes() {
    return this.link?.state === 'good' || this.jobs.some((job) => job.phase === 'resumable');
  }

  // -- the link

  /** @param {string | null} ticket */
  setLink(ticket) {
    this.link = ticket === null ? null : Link.parse(ticket);
    clearTimeout(this.expiry);
    const { link } = this;
    if (link !== null && link.state === 'good' && link.expires !== null) {
      const left = link.expires * 1000 - Date.now();
      // A clock that is wrong must not lock a good link out: whoever is late asks the server what time it is.
      if (left <= 0) void this.checkClock(link);
      else this.expiry = window.setTimeout(() => void this.checkClock(link), Math.min(left, 2 ** 31 - 1));
    }
    this.showLink();
  }

  /** @param {Link} link */
  async checkClock(link) {
    let now = Date.now();
    try {
      const signal = AbortSignal.timeout(CLOCK_PATIENCE);
      const answer = await fetch(document.baseURI.split('#')[0] ?? '', { method: 'HEAD', cache: 'no-store', signal });
      now = Date.parse(answer.headers.get('Date') ?? '') || now;
    } catch {
      // No network: our own clock it is.
    }
    const left = (link.expires ?? 0) * 1000 - now;
    if (left <= 0) this.endLink(link, 'expired');
    else if (this.link === link) this.expiry = window.setTimeout(() => void this.checkClock(link), Math.min(left, 2 ** 31 - 1));
  }

  /**
   * @param {Link} link
   * @param {'expired' | 'used-up' | 'bad' | 'wrong'} state
   */
  endLink(link, state) {
    link.state = state;
    if (this.link !== link) return;
    this.showLink();
    const told = /** @type {const} */ ({ expired: 'expiredHeading', 'used-up': 'usedUpHeading', bad: 'badLinkHeading', wrong: 'badLinkHeading' });
    this.announcer.say('link', say(told[state]));
  }

  showLink() {
    const { ui, link } = this;
    for (const key of ['expired', 'used-up', 'bad', 'wrong']) this.notice(key, null);
    ui.explanation.hidden = link !== null;
    if (link === null) this.explain();
    ui.adding.hidden = link === null || link.state !== 'good';
    if (link === null) return;
    const until = link.expires === null ? '' : texts.moment(link.expires);
    switch (link.state) {
      case 'good':
        this.showLimits(link);
        break;
      case 'expired':
        this.notice('expired', {
          kind: 'end',
          heading: say('expiredHeading'),
          lines: [until ? say('expiredText', { time: until }) : say('expiredTextNoTime'), ...this.running()],
        });
        break;
      case 'used-up':
        this.notice('used-up', {
          kind: 'end',
          heading: say('usedUpHeading'),
          lines: [say('usedUpText'), ...this.running()],
        });
        break;
      default:
        this.notice(link.state, {
          kind: 'end',
          heading: say('badLinkHeading'),
          lines: [say(link.state === 'bad' ? 'badLinkText' : 'wrongLinkText')],
        });
    }
    this.changed();
  }

  /** @param {Link} link */
  showLimits(link) {
    const { limits } = this.ui;
    const lines = [];
    if (link.maxSize !== null) lines.push(say('limitSize', { size: texts.size(link.maxSize) }));
    if (link.files !== null) {
      const left = Math.max(0, link.files - this.counted());
      lines.push(say(left < link.files ? 'limitFilesLeft' : 'limitFiles', { count: link.files, left }));
    }
    if (link.expires !== null) lines.push(say('limitUntil', { time: texts.moment(link.expires) }));
    const written = lines.join('\n');
    if (limits.dataset['written'] === written) return;
    limits.dataset['written'] = written;
    limits.replaceChildren(...lines.map((line) => make('li', '', line)));
  }

  /** Files of this link that the page knows of. The server may know of more. */
  counted() {
    return this.jobs.filter((job) => job.note.ticket === this.link?.ticket && job.phase !== 'failed').length;
  }

  /** @returns {string[]} */
  running() {
    return this.jobs.some((job) => job.phase !== 'done' && job.phase !== 'failed') ? [say('expiredRunning')] : [];
  }

  explain() {
    const here = (document.baseURI.split(/[?#]/)[0] ?? '').replace(/[^/]*$/, '');
    const curl = make('pre', '', make('code', '', `curl -H "Authorization: Bearer TICKET" -F file=@photo.jpg ${here}upload`));
    curl.tabIndex = 0;
    this.ui.explanation.replaceChildren(
      make('h2', 'lead', say('noLinkHeading')),
      make('p', 'intro', say('noLinkText')),
      make('div', 'card prose', make('h3', '', say('visitorHeading')), make('p', '', say('visitorText'))),
      make('div', 'card prose', make('h3', '', say('holderHeading')), withCode('holderText', '#ticket='), curl),
      make(
        'div',
        'card prose',
        make('h3', '', say('operatorHeading')),
        withCode('operatorLink', 'hmac-file-server link'),
        withCode('operatorForm', 'hmac-file-server link --form'),
        withCode('operatorSign', 'hmac-file-server sign PUT /name.jpg'),
        withCode('operatorInit', 'hmac-file-server init'),
      ),
    );
  }

  // -- adding

  async choose() {
    const picker = /** @type {{showOpenFilePicker?: (options: object) => Promise<FileSystemFileHandle[]>}} */ (
      /** @type {unknown} */ (window)
    ).showOpenFilePicker;
    if (typeof picker !== 'function') {
      this.ui.inputFiles.click();
      return;
    }
    try {
      const handles = await picker.call(window, { multiple: true });
      this.add(await Promise.all(handles.map(async (handle) => ({ file: await handle.getFile(), handle, folder: '' }))), []);
    } catch (error) {
      if (/** @type {Error} */ (error).name !== 'AbortError') this.ui.inputFiles.click();
    }
  }

  /**
   * @param {readonly Found[]} found
   * @param {readonly string[]} unreadable
   */
  add(found, unreadable) {
    const { link } = this;
    const refused = unreadable.map((name) => say('refusedUnreadable', { name }));
    const fragment = document.createDocumentFragment();
    let added = 0;
    let room = link?.files == null ? Infinity : link.files - this.counted();
    for (const { file, handle, folder } of found) {
      const known = this.jobs.filter((job) => job.name === file.name && job.fits(file) && job.phase !== 'done');
      const waiting =
        known.find((job) => job.phase === 'resumable' && job.note.folder === folder) ??
        known.find((job) => job.phase === 'resumable');
      if (waiting !== undefined) {
        waiting.attach(file, handle);
        added += 1;
        continue;
      }
      const { name } = file;
      if (link === null || link.state !== 'good') continue;
      if (known.some((job) => job.note.folder === folder)) {
        refused.push(say('refusedTwice', { name }));
      } else if (link.maxSize !== null && file.size > link.maxSize) {
        refused.push(say('refusedSize', { name, size: texts.size(file.size), limit: texts.size(link.maxSize) }));
      } else if (link.type !== null && file.type !== link.type) {
        refused.push(say('refusedType', { name, type: link.type }));
      } else if (room <= 0) {
        refused.push(say('refusedCount', { name, count: link.files ?? 0 }));
      } else {
        room -= 1;
        added += 1;
        this.begin(link, file, handle, folder, fragment);
      }
    }
    if (found.length === 0 && unreadable.length === 0) refused.push(say('refusedEmpty'));
    this.ui.list.append(fragment);
    this.refuse(refused, found.length > 0 || unreadable.length > 0);
    if (added > 0) {
      this.announcer.say('added', say('sayAdded', { count: added }));
      this.next();
    }
    this.changed();
  }

  /**
   * @param {Link} link
   * @param {File} file
   * @param {FileSystemFileHandle | null} handle
   * @param {string} folder
   * @param {DocumentFragment} fragment
   */
  begin(link, file, handle, folder, fragment) {
    const id = [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
    /** @type {Note} */
    const note = {
      id,
      ticket: link.ticket,
      name: file.name,
      folder,
      size: file.size,
      type: file.type,
      modified: file.lastModified,
      added: Date.now(),
      handle,
      sessionId: null,
      acknowledged: 0,
      paused: false,
      url: null,
    };
    const job = new Job(this, note, file, claim(id, () => {}));
    job.phase = 'queued';
    this.jobs.push(job);
    fragment.append(job.row.node);
    void job.keep();
  }

  /**
   * @param {readonly string[]} lines
   * @param {boolean} counted do they stand for a file each?
   */
  refuse(lines, counted) {
    if (lines.length === 0) {
      this.notice('refused', null);
      return;
    }
    const told = lines.slice(0, REFUSALS_TOLD);
    if (lines.length > told.length) told.push(say('refusedMore', { count: lines.length - told.length }));
    const heading = counted ? say('refusedHeading', { count: lines.length }) : '';
    this.notice('refused', { kind: 'warn', heading, lines: told, dismiss: true });
    this.announcer.say('refused', [heading, ...told].filter(Boolean).join('. '));
  }

  // -- going on

  /** Begin what there is room for. */
  next() {
    let free = FILES_AT_ONCE - this.jobs.filter((job) => job.phase === 'running').length;
    const queued = this.jobs.filter((job) => job.phase === 'queued');
    const parallel = queued.length > 1 || free < FILES_AT_ONCE ? PARALLEL_SHARED : PARALLEL_ALONE;
    for (const job of queued) {
      if (free <= 0) break;
      free -= 1;
      job.start(parallel);
    }
    this.changed();
  }

  /** @param {Job} job */
  finished(job) {
    const open = this.jobs.filter((one) => one.busy).length;
    const done = this.jobs.filter((one) => one.phase === 'done').length;
    if (open === 0 && done === this.jobs.length) {
      this.announcer.say('done', say('sayAllDone', { count: done }));
    } else if (this.jobs.length <= FILES_AT_ONCE) {
      this.announcer.say('done', say('sayDone', { name: job.name }));
    } else {
      this.announcer.say('done', say('totalCount', { count: this.jobs.length, done }));
    }
    this.next();
  }

  /** @param {Job} job */
  failed(job) {
    const code = codeOf(job.error);
    const end = code === null ? undefined : LINK_ENDS[code];
    const { link } = this;
    if (end !== undefined && link !== null && link.ticket === job.note.ticket && link.state === 'good') {
      this.endLink(link, end);
    }
    if (end !== undefined) {
      // Nothing else can begin with it either, and need not ask. What has begun has its own right.
      for (const other of this.jobs) {
        if (other.phase === 'queued' && other.note.ticket === job.note.ticket && other.note.sessionId === null) {
          other.phase = 'failed';
          other.error = job.error;
        }
      }
    }
    this.announcer.say(`failed ${job.note.id}`, say('sayFailed', { name: job.name, reason: reasonOf(job.error) }));
    this.next();
  }

  toggleAll() {
    const busy = this.jobs.filter((job) => job.busy);
    if (busy.length > 0) {
      // Those that wait first: none of them is to begin in the place of another.
      for (const job of busy.filter((one) => one.phase === 'queued')) job.pause();
      for (const job of busy) job.pause();
      this.announcer.say('paused', say('sayPaused'));
    } else {
      for (const job of this.jobs.filter((one) => one.phase === 'paused')) job.queue();
      for (const job of this.jobs.filter((one) => one.phase === 'resumable' && one.note.handle !== null)) void this.goOn(job);
      this.announcer.say('paused', say('sayResumed'));
    }
    this.changed();
  }

  /** Resume, retry or continue, whichever it is. @param {Job} job */
  async goOn(job) {
    const { handle } = job.note;
    if (job.file === null && handle !== null && (await readable(handle, true))) {
      const file = await handle.getFile().catch(() => null);
      if (file !== null) {
        this.chosenAgain(job, file, handle);
        return;
      }
    }
    if (job.file === null) {
      this.choosing = job;
      this.ui.inputAgain.click();
      return;
    }
    // A link that ended may have been opened again since: the server is to say.
    job.queue();
    this.changed();
  }

  /**
   * @param {Job} job
   * @param {File} file
   * @param {FileSystemFileHandle | null} handle
   */
  chosenAgain(job, file, handle) {
    if (job.fits(file)) {
      this.notice('refused', null);
      job.attach(file, handle);
    } else {
      if (handle !== null) job.note.handle = null;
      this.refuse([say('refusedOther', { name: job.name, size: texts.size(job.size) })], false);
    }
    this.changed();
  }

  /** What was there before the page was loaded. */
  async recall() {
    const notes = (await this.memory.all().catch(() => [])).sort((a, b) => a.added - b.added);
    for (const { id, url, ticket, added } of notes) {
      if (url !== null && Date.now() - added > REMEMBERED_DAYS * 86_400_000) void this.memory.delete(id);
      else if (url === null || ticket === this.link?.ticket) this.recallOne(id);
    }
  }

  /** @param {string} id */
  recallOne(id) {
    const release = claim(id, () => {
      void this.memory.get(id).then(async (note) => {
        // Another window may have ended it while we waited for it.
        if (note === undefined) {
          release();
          return;
        }
        const job = new Job(this, note, null, release);
        this.jobs.push(job);
        this.ui.list.append(job.row.node);
        this.changed();
        await job.ask();
        if (job.phase === 'resumable' && !note.paused && note.handle !== null && (await readable(note.handle, false))) {
          const file = await note.handle.getFile().catch(() => null);
          if (file !== null && job.fits(file)) job.attach(file, note.handle);
        }
        this.changed();
      });
    });
  }

  // -- removing

  /** @param {Job} job */
  async remove(job) {
    if (job.phase !== 'done' && job.shown > 0 && !(await this.confirm(job))) return;
    const index = this.jobs.indexOf(job);
    if (index < 0) return;
    this.jobs.splice(index, 1);
    const neighbour = this.jobs[index] ?? this.jobs[index - 1];
    const focused = job.row.node.contains(document.activeElement) || document.activeElement === document.body;
    job.row.node.remove();
    if (focused) (neighbour?.row.remove ?? (this.ui.adding.hidden ? this.ui.files : this.ui.chooseFiles)).focus();
    this.announcer.say('removed', say('sayRemoved', { name: job.name }));
    void job.drop();
    this.next();
  }

  clearDone() {
    for (const job of this.jobs.filter((one) => one.phase === 'done')) {
      this.jobs.splice(this.jobs.indexOf(job), 1);
      job.row.node.remove();
      void job.drop();
    }
    (this.ui.adding.hidden ? this.ui.files : this.ui.chooseFiles).focus();
    this.changed();
  }

  // -- dialogs

  /** @param {Job} job @returns {Promise<boolean>} */
  confirm(job) {
    const { dialog } = this.ui;
    return new Promise((resolve) => {
      let answer = false;
      const yes = makeButton('danger', () => {
        answer = true;
        dialog.close();
      });
      dress(yes, 'close', say('removeConfirm'));
      const no = makeButton('', () => dialog.close());
      dress(no, 'check', say('keep'));
      no.autofocus = true;
      dialog.addEventListener('close', () => resolve(answer), { once: true });
      this.openDialog(say('removeHeading', { name: job.name }), [
        make('p', '', say('removeText', { percent: texts.percent(job.share) })),
        make('div', 'buttons', no, yes),
      ]);
    });
  }

  /** @param {Job} job */
  showQr(job) {
    const { url } = job.note;
    if (url === null) return;
    const image = make('img', 'qr');
    image.alt = say('qrAlt', { name: job.name });
    image.width = image.height = 264;
    image.src = `upload-qr.svg?url=${encodeURIComponent(url)}`;
    const copy = makeButton('primary', () => void this.copy([job], copy));
    dress(copy, 'link', say('copyLink'));
    copy.autofocus = true;
    const close = makeButton('', () => this.ui.dialog.close());
    dress(close, 'close', say('close'));
    this.openDialog(say('qrHeading', { name: job.name }), [image, this.linkField([url]), make('div', 'buttons', copy, close)]);
  }

  /** @param {readonly string[]} urls */
  linkField(urls) {
    const field = make('textarea', 'links');
    field.readOnly = true;
    field.value = urls.join('\n');
    field.rows = Math.min(6, urls.length + 1);
    field.setAttribute('aria-label', say('copyLink'));
    field.addEventListener('focus', () => field.select());
    return field;
  }

  /** @param {string} heading @param {readonly Node[]} content */
  openDialog(heading, content) {
    const { dialog } = this.ui;
    const title = make('h2', '', heading);
    title.id = 'dialog-heading';
    dialog.replaceChildren(title, ...content);
    if (!dialog.open) dialog.showModal();
  }

  /**
   * @param {readonly Job[]} jobs
   * @param {HTMLButtonElement} button
   */
  async copy(jobs, button) {
    const urls = jobs.flatMap((job) => (job.note.url === null ? [] : [job.note.url]));
    if (!(await copyText(urls.join('\n')))) {
      const field = this.linkField(urls);
      this.openDialog(say('copyLink'), [make('p', '', say('sayCopyFailed')), field]);
      field.focus();
      return;
    }
    this.announcer.say('copied', say('sayCopied', { count: urls.length }));
    const name = jobs.length === 1 && button !== this.ui.copyAll ? { name: jobs[0]?.name ?? '' } : {};
    dress(button, 'check', say('copied'), name);
    button.dataset['copied'] = '';
    window.setTimeout(() => {
      delete button.dataset['copied'];
      dress(button, 'link', say(button === this.ui.copyAll ? 'copyAll' : 'copyLink'), name);
    }, 2500);
  }

  // -- notices

  /**
   * Shows a notice, changes it, or (null) takes it away.
   * @param {string} key
   * @param {{kind: 'info' | 'warn' | 'offline' | 'end', heading?: string, lines: readonly string[], dismiss?: boolean} | null} content
   */
  notice(key, content) {
    const { notices, chooseFiles } = this.ui;
    const old = [...notices.children].find((node) => node instanceof HTMLElement && node.dataset['notice'] === key);
    if (content === null) {
      old?.remove();
      return;
    }
    const written = JSON.stringify(content);
    if (old instanceof HTMLElement && old.dataset['written'] === written) return;
    const pictures = /** @type {const} */ ({ info: 'info', warn: 'alert', offline: 'offline', end: 'clock' });
    const text = make('div', 'notice-text');
    if (content.heading) text.append(make('h2', '', content.heading));
    text.append(...content.lines.map((line) => make('p', '', line)));
    const node = make('div', `notice ${content.kind}`, icon(pictures[content.kind]), text);
    node.dataset['notice'] = key;
    node.dataset['written'] = written;
    if (content.dismiss) {
      const close = makeButton('small bare', () => {
        node.remove();
        chooseFiles.focus();
      });
      dress(close, 'close', say('dismiss'), { bare: true });
      node.append(close);
    }
    if (old) old.replaceWith(node);
    else notices.append(node);
  }

  // -- the whole

  /** Something changed: show it with the next picture. */
  changed() {
    if (this.frame !== 0) return;
    const show = () => {
      cancelAnimationFrame(this.frame);
      clearTimeout(timer);
      this.frame = 0;
      this.show();
    };
    // No pictures are drawn in the background, where the title still tells how far it is.
    const timer = window.setTimeout(show, 500);
    this.frame = requestAnimationFrame(show);
  }

  show() {
    const { jobs } = this;
    for (const job of jobs) job.row.update();
    this.showTotal();
    this.showNetwork();
    if (this.link?.state === 'good') this.showLimits(this.link);
    const ticking = jobs.some((job) => job.busy);
    if (ticking && this.clock === 0) this.clock = window.setInterval(() => this.changed(), 1000);
    if (!ticking && this.clock !== 0) {
      clearInterval(this.clock);
      this.clock = 0;
    }
    if (ticking !== this.wanted) {
      this.wanted = ticking;
      void this.stayAwake();
    }
  }

  showTotal() {
    const { ui, jobs } = this;
    const done = jobs.filter((job) => job.phase === 'done');
    const failed = jobs.filter((job) => job.phase === 'failed');
    const busy = jobs.filter((job) => job.busy);
    const counted = jobs.filter((job) => job.phase !== 'failed');
    const size = counted.reduce((sum, job) => sum + job.size, 0);
    const sent = counted.reduce((sum, job) => sum + job.shown, 0);
    const rate = busy.reduce((sum, job) => sum + (job.state === 'uploading' ? job.rate : 0), 0);
    const ended = counted.length > 0 && done.length === counted.length;
    const share = ended ? 1 : size === 0 ? 0 : Math.min(sent / size, 0.999);
    const empty = jobs.length === 0;
    ui.total.hidden = empty;
    ui.files.hidden = empty;
    ui.zone.classList.toggle('compact', !empty);
    ui.intro.hidden = !empty;
    write(ui.zoneText, say(empty ? 'drop' : 'dropShort'));
    const left = rate > 0 ? say('left', { time: texts.duration((size - sent) / rate) }) : '';
    write(ui.totalPercent, texts.percent(share));
    if (ui.totalBar.value !== share) ui.totalBar.value = share;
    ui.total.dataset['state'] = ended ? 'done' : busy.length > 0 ? 'running' : 'still';
    write(
      ui.totalStatus,
      parts(
        say('totalCount', { count: jobs.length, done: done.length }),
        ended ? texts.size(size) : say('amount', { sent: texts.size(sent), total: texts.size(size) }),
        rate > 0 ? texts.speed(rate) : '',
        left,
        failed.length > 0 ? say('totalFailed', { count: failed.length }) : '',
      ),
    );
    const resumable = jobs.filter((job) => job.phase === 'paused' || (job.phase === 'resumable' && job.note.handle !== null));
    const held = document.activeElement;
    ui.pauseAll.hidden = busy.length === 0 && resumable.length === 0;
    if (busy.length > 0) dress(ui.pauseAll, 'pause', say('pauseAll'));
    else dress(ui.pauseAll, 'play', say('resumeAll'));
    ui.retryAll.hidden = failed.filter((job) => job.file !== null).length < 2;
    ui.copyAll.hidden = done.length < 2;
    ui.clearDone.hidden = done.length === 0 || busy.length > 0;
    if (held instanceof HTMLButtonElement && held.hidden && ui.total.contains(held)) {
      // A focus must not fall into nothing with its button.
      (ui.copyAll.hidden ? ui.files : ui.copyAll).focus();
    }
    this.showTitle(share, busy.length > 0, ended, jobs.some((job) => job.phase === 'paused'));
    if (busy.length > 0) {
      this.announcer.progress(share, () => say('sayProgress', { percent: texts.percent(share), left }));
    }
  }

  /** @param {number} share @param {boolean} busy @param {boolean} ended @param {boolean} paused */
  showTitle(share, busy, ended, paused) {
    let title = say('title');
    if (busy) title = this.offline() ? say('titleOffline') : say('titleRunning', { percent: texts.percent(share) });
    else if (ended) title = say('titleDone');
    else if (paused) title = say('titlePaused');
    if (document.title !== title) document.title = title;
  }

  offline() {
    return this.jobs.some((job) => job.state === 'offline');
  }

  showNetwork() {
    const busy = this.jobs.filter((job) => job.busy);
    const offline = busy.length > 0 && this.offline();
    this.notice('offline', offline ? { kind: 'offline', lines: [say('offline')] } : null);
    const away =
      !offline && busy.some((job) => job.state === 'waiting' && job.attempt > 1 && !fromServer(job.error));
    this.notice('away', away ? { kind: 'offline', lines: [say('serverAway')] } : null);
    const count = this.jobs.filter((job) => job.phase === 'resumable').length;
    this.notice('resumable', count > 0 ? { kind: 'info', lines: [say('resumable', { count })] } : null);
  }

  /** Phones that fall asleep stop uploading. */
  async stayAwake() {
    if (!('wakeLock' in navigator) || !matchMedia('(pointer: coarse)').matches) return;
    if (this.wanted && document.visibilityState === 'visible') {
      if (this.wakeLock === null || this.wakeLock.released) {
        this.wakeLock = await navigator.wakeLock.request('screen').catch(() => null);
      }
    } else {
      const held = this.wakeLock;
      this.wakeLock = null;
      await held?.release().catch(() => undefined);
    }
  }
}

/**
 * A paragraph with a piece of code in it.
 * @param {TextKey} key
 * @param {string} code
 */
function withCode(key, code) {
  const [before = '', after = ''] = say(key, { code: '\u0000' }).split('\u0000');
  return make('p', '', before, make('code', '', code), after);
}

/** @param {string} text @returns {Promise<boolean>} */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Pages without TLS have no clipboard but this.
    const field = make('textarea', 'visually-hidden', text);
    (document.querySelector('dialog[open]') ?? document.body).append(field);
    const held = document.activeElement;
    field.select();
    const copied = document.execCommand('copy');
    field.remove();
    if (held instanceof HTMLElement) held.focus();
    return copied;
  }
}

await new Page(await Memory.open()).open();
