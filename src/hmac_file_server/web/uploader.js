/**
 * Resumable uploads that survive networks: the client of hmac-file-server's chunk API (docs/api.md), one module
 * without dependencies for browsers and for Node 20 and later.
 *
 *     const uploader = new NetworkResilientUploader(file, '/upload/chunked', { ticket });
 *     uploader.addEventListener('progress', ({ detail }) => show(detail));
 *     const { url } = await uploader.upload();
 *
 * What it relies on: every range in an answer of the server is durable there; a body that is cut keeps what came of
 * it; asking for the status makes durable what a dead connection brought; a new request for a chunk takes it over
 * from the old one. So after any trouble it asks, and goes on where the server's bytes end.
 *
 * @module
 * @license Apache-2.0
 */

/**
 * Bytes `[start, stop)` of the file.
 * @typedef {[number, number]} Range
 */

/**
 * The rest of a chunk that the server does not hold: bytes `[begin, stop)` of the file.
 * @typedef {object} Piece
 * @property {number} number of the chunk, from 0
 * @property {number} start where the chunk begins in the file
 * @property {number} begin where the body begins in the file
 * @property {number} stop where the chunk, and so the body, ends
 */

/**
 * What is to be uploaded when it is not a `File` of the browser, or `NetworkResilientUploader.fromPath`.
 * @typedef {object} Source
 * @property {string} name
 * @property {number} size bytes
 * @property {string} [type] media type
 * @property {number} [lastModified] milliseconds since 1970
 * @property {(start: number, stop: number) => Blob | Uint8Array | Promise<Blob | Uint8Array>} slice
 * @property {() => Promise<void>} [check] rejects when the content is not what it was
 * @property {(start: number, into: Uint8Array) => Promise<number>} [readInto] fills the array from a place of the file
 * @property {() => Promise<void>} [close] called when nothing more will be read
 */

/**
 * @typedef {object} Progress
 * @property {number} sent bytes that have left this client, or are on the server
 * @property {number} acknowledged bytes that are durable on the server, as far as it has told
 * @property {number} total bytes of the file
 * @property {number} rate bytes per second, over the last seconds
 * @property {number | null} secondsLeft null while nothing moves
 */

/**
 * @typedef {object} Result
 * @property {string} sessionId
 * @property {string} filename as the server understood it
 * @property {number} size bytes
 * @property {string} url absolute
 * @property {string} [digest] `<algorithm>:<hexadecimal>` of the content, when the server tells one
 */

/**
 * What is remembered of an unfinished upload. The id is a credential: whoever has it may continue the upload.
 * @typedef {object} Entry
 * @property {string} key the Idempotency-Key that the session was begun with
 * @property {string | null} sessionId null until the server has answered
 * @property {string} endpoint absolute
 * @property {string} name
 * @property {number} size
 * @property {number} created milliseconds since 1970, by this machine's clock
 * @property {number | null} expiresAt the same; null until the server has said
 */

/**
 * Where unfinished uploads are remembered.
 * @typedef {object} SessionStore
 * @property {(fingerprint: string) => Promise<Entry | null>} get
 * @property {(fingerprint: string, entry: Entry) => Promise<void>} set
 * @property {(fingerprint: string) => Promise<void>} delete
 * @property {() => Promise<Array<[string, Entry]>>} list
 */

/**
 * A request that is about to be made, for functions that sign it.
 * @typedef {object} Order
 * @property {string} method
 * @property {string} url absolute
 * @property {string} path of the URL, as it is sent
 * @property {string} filename the value of X-Filename, empty where it is not sent
 * @property {number} size what a strong X-Signature binds: the file's size on creation, else the body's length
 */

/**
 * @typedef {object} Options
 * @property {number} [chunkSize] bytes, at most; the server's own is taken where that is smaller
 * @property {number} [maxRetries] failures in a row without progress that are borne (5); may be Infinity
 * @property {number} [parallel] chunks under way at once, at most (4)
 * @property {Record<string, string> | ((order: Order) => Record<string, string> | Promise<Record<string, string>>)} [headers]
 *   sent when the session is begun, and with everything else if `signChunks`
 * @property {boolean} [signChunks] for servers with strict signatures
 * @property {string} [ticket] sent as `Authorization: Bearer`
 * @property {string} [signature] sent as `X-Signature`
 * @property {string} [name] of the file, for people
 * @property {string} [type] media type of the file
 * @property {SessionStore | null} [store] null: nothing outlives this object. Default: the browser's storage; in Node null
 * @property {(file: Source | Blob) => string | Promise<string>} [fingerprint] what identifies an upload between runs
 * @property {'auto' | 'sha-256' | false} [digest] `auto`: on bodies that are so short that little is lost when
 *   they are cut; `sha-256`: on every body, in shorter chunks
 * @property {number} [watchdog] milliseconds without any movement before a connection is given up (5000, the least)
 * @property {AbortSignal} [signal]
 * @property {{base?: number, max?: number}} [retryDelay] milliseconds (1000, 30000)
 * @property {import('node:tls').SecureContextOptions & {rejectUnauthorized?: boolean}} [tls] Node only
 */

/** @typedef {'idle'|'starting'|'uploading'|'paused'|'offline'|'waiting'|'done'|'failed'|'aborted'} State */

const KIB = 1024;
const MIB = 1024 * KIB;
/** A chunk has at least this, unless the file is shorter. */
const CHUNK_MIN = 256 * KIB;
const CHUNKS_MAX = 100_000;
const ANSWER_MAX = 4 * MIB;
/** Bytes that are read and written at once, in Node. */
const PART_MAX = 512 * KIB;
/** Requests with bodies at once to one server in a browser, which has six connections: one is left for questions. */
const BODIES_MAX = 5;
/** Least bytes per second that make another parallel chunk worth it. */
const LANE_RATE = 64 * KIB;
/** Longest body that gets a digest by itself: the server keeps nothing of a body with a digest that is cut. */
const DIGEST_MAX = 64 * KIB;
/** Milliseconds between two looks at this machine's addresses, while all is well and while it is not. */
const LOOK_EVERY = 100;
const LOOK_OFTEN = 10;
const WATCHDOG_MIN = 5000;
const BOUND_MAX = 60_000;
/** Milliseconds between attempts, on the average, and for how long they are as often, after a connection that worked. */
const SEARCH_EVERY = 400;
const SEARCH_FOR = 30_000;
/** Milliseconds that a question may take, at least. */
const QUESTION_MIN = 1500;
/** Milliseconds after which a question is asked again when the network has changed. */
const QUIET = 300;
/** How often bodies are examined in vain after a change of the network, a QUIET apart. */
const EXAMINATIONS = 10;
const PROGRESS_EVERY = 100;
/** Milliseconds for which the key of a session is remembered whose answer never came. */
const UNANSWERED_AGE = 24 * 3600 * 1000;
const PUBLICATION_WAIT = 20;

/** @returns {number} milliseconds of a clock that nobody sets */
const now = () => performance.now();

// ---- errors

/**
 * Why an upload, or one attempt of it, failed.
 *
 * `code` is the server's word (docs/errors.md) or one of these: `network` (no connection, or it was cut), `timeout`
 * (no answer in time), `stalled` (nothing moved any more), `bad_answer` (not from this server), `file_changed`,
 * `file_unreadable`, `bad_endpoint`, `aborted`, `http_STATUS` (an error without a word).
 */
export class UploadError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {{status?: number, retriable?: boolean, detail?: string, requestId?: string, retryAfter?: number | null,
   *   cause?: unknown}} [facts]
   */
  constructor(code, message, facts = {}) {
    super(message, facts.cause === undefined ? undefined : { cause: facts.cause });
    this.name = 'UploadError';
    this.code = code;
    /** HTTP status; 0 when there was no answer. */
    this.status = facts.status ?? 0;
    /** Whether the same again may succeed. */
    this.retriable = facts.retriable ?? false;
    /** The server's words for people. */
    this.detail = facts.detail ?? '';
    /** To find the request in the server's log. */
    this.requestId = facts.requestId ?? '';
    /** Seconds that the server asks to be left alone for, or null. */
    this.retryAfter = facts.retryAfter ?? null;
  }
}

const RETRIABLE_CODES = new Set(['upload_taken_over', 'incomplete', 'digest_mismatch', 'bad_chunk', 'network_changed']);
const FINAL_5XX = new Set([501, 505]);
/** What a look at the status, and the chunk once more from its beginning, may mend. */
const MISFITS = new Set(['chunk_differs', 'offset_mismatch', 'bad_chunk_length', 'bad_chunk_number', 'bad_field']);

/**
 * @param {Answer} answer of a status that is no success
 * @returns {UploadError}
 */
function errorOf(answer) {
  const problem = objectOf(answer.text) ?? {};
  const { status } = answer;
  // A portal, perhaps, that wants to be signed in to first.
  if (status < 400) return badAnswer(status);
  const code = typeof problem.code === 'string' && problem.code !== '' ? problem.code : `http_${status}`;
  const detail = typeof problem.detail === 'string' ? problem.detail : '';
  const retriable =
    status === 408 || status === 421 || status === 425 || status === 429 ||
    (status >= 500 && !FINAL_5XX.has(status)) || RETRIABLE_CODES.has(code);
  return new UploadError(code, detail || `The server answered ${status}.`, {
    status,
    retriable,
    detail,
    requestId: typeof problem.request_id === 'string' ? problem.request_id : answer.header('x-request-id') ?? '',
    retryAfter: retryAfter(answer.header('retry-after'), Date.now()),
  });
}

/** @param {number} [status] */
const badAnswer = (status) =>
  new UploadError('bad_answer', 'That was no answer of this server.', { status: status ?? 0, retriable: true });

/** @param {UploadError} error */
const gone = (error) => error.status === 404 || error.status === 410;

/**
 * @param {string} text
 * @returns {Record<string, unknown> | null} the JSON object, or null if it is none
 */
function objectOf(text) {
  try {
    const value = JSON.parse(text);
    return value !== null && typeof value === 'object' && !Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}

// ---- planning: pure functions

/**
 * Ranges in order, without overlaps, touching ones joined.
 * @param {Iterable<readonly [number, number]>} ranges
 * @returns {Range[]}
 */
export function joined(ranges) {
  /** @type {Range[]} */
  const result = [];
  for (const [start, stop] of [...ranges].sort((a, b) => a[0] - b[0])) {
    if (stop <= start) continue;
    const last = result.at(-1);
    if (last !== undefined && start <= last[1]) {
      last[1] = Math.max(last[1], stop);
    } else {
      result.push([start, stop]);
    }
  }
  return result;
}

/**
 * @param {readonly Range[]} ranges joined
 * @returns {number} bytes in them
 */
export const amount = (ranges) => ranges.reduce((sum, [start, stop]) => sum + stop - start, 0);

/**
 * How far the bytes reach that are there without a gap from a place on.
 * @param {readonly Range[]} ranges joined
 * @param {number} place
 * @returns {number} `place` itself when nothing is there
 */
export function reach(ranges, place) {
  for (const [start, stop] of ranges) {
    if (start > place) break;
    if (stop > place) return stop;
  }
  return place;
}

/**
 * What is to be sent next: the rests of chunks of which something is missing, lowest first.
 *
 * The protocol's bodies end where their chunk ends, so a rest is what follows the bytes that are there from the
 * chunk's beginning on.
 * @param {readonly Range[]} received joined
 * @param {number} chunkSize bytes
 * @param {number} total bytes of the file
 * @param {ReadonlySet<number>} [busy] numbers of chunks that are left out
 * @returns {Generator<Piece, void, void>}
 */
export function* pieces(received, chunkSize, total, busy = new Set()) {
  let index = 0;
  for (let number = 0; number * chunkSize < total; number += 1) {
    const start = number * chunkSize;
    const stop = Math.min(start + chunkSize, total);
    while (index < received.length && /** @type {Range} */ (received[index])[1] <= start) index += 1;
    const range = received[index];
    const begin = range !== undefined && range[0] <= start ? Math.min(range[1], stop) : start;
    if (begin < stop && !busy.has(number)) yield { number, start, begin, stop };
    if (range !== undefined && range[0] <= start && range[1] > stop) {
      // Whole chunks are passed over without looking at each.
      number = Math.max(number, Math.floor(range[1] / chunkSize) - 1);
    }
  }
}

/**
 * Bytes that chunks of a new session should have.
 * @param {object} facts
 * @param {number} facts.total bytes of the file
 * @param {number} facts.announced by the server; never exceeded, since proxies are set up for it
 * @param {number} [facts.wanted] by the user
 * @param {number} facts.parallel chunks at once
 * @param {number | null} facts.rate bytes per second if it is known
 * @param {boolean} facts.whole whether a body that is cut is lost whole, as it is with a digest
 * @returns {number}
 */
export function chunkLength({ total, announced, wanted, parallel, rate, whole }) {
  const least = Math.max(1, Math.ceil(total / CHUNKS_MAX));
  let length = Math.min(announced, wanted ?? announced);
  if (wanted === undefined) {
    // Short files keep all connections busy, too; and those of a long one end at about the same time.
    length = Math.min(length, Math.max(roundTo64(total / parallel / 25), MIB));
    // One chunk should be acknowledged every few seconds.
    if (rate !== null) length = Math.min(length, Math.max(CHUNK_MIN, roundTo64(rate * 4)));
  }
  if (whole) length = Math.min(length, Math.max(64 * KIB, rate === null ? CHUNK_MIN : roundTo64(rate / parallel)));
  length = Math.min(announced, Math.max(least, length));
  // One chunk is one chunk, however long it might have been.
  return length >= total ? announced : length;
}

/** @param {number} bytes */
const roundTo64 = (bytes) => Math.ceil(bytes / (64 * KIB)) * 64 * KIB;

/**
 * Milliseconds to wait before another attempt: exponential, with full jitter.
 * @param {number} attempt from 1
 * @param {number} base milliseconds
 * @param {number} max milliseconds
 * @param {() => number} [random] from 0 to 1
 */
export const backoff = (attempt, base, max, random = Math.random) =>
  random() * Math.min(max, base * 2 ** Math.min(attempt - 1, 30));

/**
 * The value of Retry-After (RFC 9110, section 10.2.3) in seconds from now.
 * @param {string | null} value seconds or an HTTP date
 * @param {number} time milliseconds since 1970
 * @returns {number | null} null when there is none, or it is neither
 */
export function retryAfter(value, time) {
  if (value === null) return null;
  const text = value.trim();
  if (/^[0-9]{1,9}$/.test(text)) return Number(text);
  const moment = /[a-z]/i.test(text) ? Date.parse(text) : NaN;
  return Number.isNaN(moment) ? null : Math.max(0, (moment - time) / 1000);
}

/**
 * The URL that tells how far an upload is.
 * @param {URL} endpoint of the chunk API, under either of its names
 * @returns {URL}
 */
export function statusUrl(endpoint) {
  const url = new URL(endpoint);
  url.hash = '';
  url.pathname = /\/chunked-upload\/?$/.test(url.pathname)
    ? url.pathname.replace(/\/chunked-upload\/?$/, '/upload-status')
    : url.pathname.replace(/\/[^/]*\/?$/, '/status');
  return url;
}

/** Bytes per second over the last seconds. */
class RateMeter {
  /** @param {number} seconds */
  constructor(seconds) {
    this.#window = seconds * 1000;
  }

  #window;
  /** @type {Array<[number, number]>} */
  #samples = [];
  #sum = 0;
  /** @type {number | null} */
  #since = null;

  /** @param {number} bytes */
  add(bytes) {
    const time = now();
    this.#since ??= time;
    const last = this.#samples.at(-1);
    if (last !== undefined && time - last[0] < 50) {
      last[1] += bytes;
    } else {
      this.#samples.push([time, bytes]);
    }
    this.#sum += bytes;
  }

  /** @returns {number} */
  get rate() {
    if (this.#since === null) return 0;
    const time = now();
    while (this.#samples.length > 0 && time - /** @type {[number, number]} */ (this.#samples[0])[0] > this.#window) {
      this.#sum -= /** @type {[number, number]} */ (this.#samples.shift())[1];
    }
    const span = Math.min(this.#window, time - this.#since);
    return span < 50 ? 0 : (this.#sum * 1000) / span;
  }

  reset() {
    this.#samples = [];
    this.#sum = 0;
    this.#since = null;
  }
}

// ---- requests

/**
 * @typedef {object} Answer
 * @property {number} status
 * @property {string} text
 * @property {(name: string) => string | null} header by its name in lower case
 */

/**
 * @typedef {object} Request
 * @property {string} method
 * @property {URL} url
 * @property {Record<string, string>} headers
 * @property {{source: Source | Blob, start: number, stop: number} | null} [body]
 * @property {(bytes: number) => void} [onSent] told how much of the body has left
 * @property {(address: string) => void} [onAddress] called when the server may hear of it, with the local address,
 *   where that can be known
 * @property {AbortSignal} signal its abortion drops the connection at once
 * @property {boolean} [fresh] on a new connection, where that can be had
 */

/**
 * @typedef {object} Transport
 * @property {(request: Request) => Promise<Answer>} send rejects with UploadError `network`, or the signal's reason
 * @property {() => void} close drops idle connections
 */

/** @param {unknown} [cause] */
const networkError = (cause) =>
  new UploadError('network', 'The connection failed or was cut.', { retriable: true, cause });

/**
 * @param {Source | Blob} source
 * @param {number} start
 * @param {number} stop
 * @returns {Promise<Blob | Uint8Array>}
 */
async function sliceOf(source, start, stop) {
  if (isBlob(source)) return source.slice(start, stop, 'application/octet-stream');
  return source.slice(start, stop);
}

/**
 * @param {unknown} value
 * @returns {value is Blob}
 */
const isBlob = (value) => typeof Blob === 'function' && value instanceof Blob;

/** Requests of browsers: the only kind there that tells how much of a body has left. */
class XhrTransport {
  /**
   * @param {Request} request
   * @returns {Promise<Answer>}
   */
  async send({ method, url, headers, body, onSent, onAddress, signal }) {
    const content = body ? await sliceOf(body.source, body.start, body.stop) : null;
    signal.throwIfAborted();
    onAddress?.('');
    try {
      return await new Promise((resolve, reject) => {
        const xhr = new XMLHttpRequest();
        const aborted = () => {
          xhr.abort();
          reject(signal.reason);
        };
        signal.addEventListener('abort', aborted, { once: true });
        const over = () => signal.removeEventListener('abort', aborted);
        xhr.open(method, url);
        for (const [name, value] of Object.entries(headers)) xhr.setRequestHeader(name, value);
        if (body && onSent) {
          xhr.upload.addEventListener('progress', ({ loaded }) => onSent(loaded));
          xhr.upload.addEventListener('load', () => onSent(body.stop - body.start));
        }
        xhr.addEventListener('load', () => {
          over();
          resolve({ status: xhr.status, text: xhr.responseText, header: (name) => xhr.getResponseHeader(name) });
        });
        xhr.addEventListener('error', () => {
          over();
          reject(networkError());
        });
        xhr.send(/** @type {XMLHttpRequestBodyInit | null} */ (content));
      });
    } catch (error) {
      // A file that can no longer be read looks like a network that fails.
      if (body && !signal.aborted) await readable(body.source, body.start, body.stop);
      throw error;
    }
  }

  close() {}
}

/**
 * @param {Source | Blob} source
 * @param {number} start
 * @param {number} stop
 * @returns {Promise<void>} rejects with UploadError `file_unreadable`
 */
async function readable(source, start, stop) {
  try {
    const part = await sliceOf(source, start, Math.min(start + 1, stop));
    if (isBlob(part)) await part.arrayBuffer();
  } catch (error) {
    throw unreadable(error);
  }
}

/** @param {unknown} cause */
function unreadable(cause) {
  if (cause instanceof UploadError) return cause;
  return new UploadError('file_unreadable', 'The file can no longer be read: it was changed, moved or removed.', { cause });
}

/** Where there is nothing else (service workers): tells nothing before the answer. */
class FetchTransport {
  /**
   * @param {Request} request
   * @returns {Promise<Answer>}
   */
  async send({ method, url, headers, body, onSent, onAddress, signal }) {
    const content = body ? await sliceOf(body.source, body.start, body.stop) : null;
    onAddress?.('');
    try {
      const answer = await fetch(url, { method, headers, body: /** @type {BodyInit | null} */ (content), signal, cache: 'no-store' });
      if (body && onSent) onSent(body.stop - body.start);
      const text = await answer.text();
      return { status: answer.status, text, header: (name) => answer.headers.get(name) };
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      if (body) await readable(body.source, body.start, body.stop);
      throw networkError(error);
    }
  }

  close() {}
}

/**
 * A module of Node, kept out of the sight of bundlers.
 * @param {string} name
 * @returns {Promise<any>}
 */
const nodeModule = (name) => import(/* @vite-ignore */ /* webpackIgnore: true */ `node:${name}`);

const inNode = () => typeof process === 'object' && typeof process.versions?.node === 'string';

/**
 * Requests of Node by its own HTTP client, since fetch() there can neither tell how much has left nor drop a dead
 * connection with what its kernel still holds.
 */
class NodeTransport {
  /**
   * @param {URL} url
   * @param {Options['tls']} tls
   * @returns {Promise<NodeTransport>}
   */
  static async of(url, tls) {
    /** @type {typeof import('node:net')} */
    const net = await nodeModule('net');
    if (url.protocol !== 'https:') {
      /** @type {typeof import('node:http')} */
      const http = await nodeModule('http');
      const agent = new http.Agent({ keepAlive: true, scheduling: 'lifo' });
      return new NodeTransport(http.request, agent, new WeakMap());
    }
    /** @type {typeof import('node:https')} */
    const https = await nodeModule('https');
    /** @type {typeof import('node:tls')} */
    const { connect } = await nodeModule('tls');
    const agent = new https.Agent({ keepAlive: true, scheduling: 'lifo', ...tls });
    /** The TCP sockets below TLS: only they can be reset. @type {WeakMap<import('node:net').Socket, import('node:net').Socket>} */
    const below = new WeakMap();
    Object.assign(agent, {
      /** @param {import('node:tls').ConnectionOptions & import('node:net').TcpNetConnectOpts} options */
      createConnection(options) {
        const raw = net.connect({ host: options.host ?? 'localhost', port: options.port, noDelay: true });
        const secure = connect({ ...options, socket: raw });
        raw.on('error', (error) => secure.destroy(error));
        below.set(secure, raw);
        return secure;
      },
    });
    return new NodeTransport(https.request, agent, below);
  }

  /**
   * @param {typeof import('node:http').request} make
   * @param {import('node:http').Agent} agent
   * @param {WeakMap<import('node:net').Socket, import('node:net').Socket>} below
   */
  constructor(make, agent, below) {
    this.#make = make;
    this.#agent = agent;
    this.#below = below;
  }

  #make;
  #agent;
  #below;
  /** Buffers that no body uses. @type {Array<[Uint8Array, Uint8Array]>} */
  #spare = [];

  /**
   * @param {Request} request
   * @returns {Promise<Answer>}
   */
  async send({ method, url, headers, body, onSent, onAddress, signal, fresh }) {
    signal.throwIfAborted();
    if (fresh) this.close();
    const length = body ? body.stop - body.start : 0;
    const request = this.#make(url, { method, agent: this.#agent, headers: { ...headers, 'Content-Length': String(length) } });
    /** @type {import('node:net').Socket | null} */
    let socket = null;
    request.once('socket', (found) => {
      socket = found;
      const told = () => onAddress?.(found.localAddress ?? '');
      if (found.connecting) found.once('connect', told);
      else told();
    });
    const drop = () => {
      const raw = socket === null ? null : this.#below.get(socket) ?? socket;
      // What the kernel still holds must not be sent any more: the server would get it twice. A socket that is being
      // shut down cannot be reset, and Node would never close it after an attempt.
      if (raw !== null && !raw.destroyed && !raw.connecting && raw.writable && !raw.writableEnded) raw.resetAndDestroy();
      request.destroy();
    };
    signal.addEventListener('abort', drop, { once: true });
    try {
      /** @type {Promise<Answer>} */
      const answered = new Promise((resolve, reject) => {
        request.once('response', (response) => {
          /** @type {Buffer[]} */
          const parts = [];
          let size = 0;
          response.on('data', (/** @type {Buffer} */ part) => {
            size += part.length;
            if (size > ANSWER_MAX) response.destroy();
            else parts.push(part);
          });
          response.once('end', () => {
            const text = Buffer.concat(parts).toString('utf8');
            const header = (/** @type {string} */ name) => {
              const value = response.headers[name];
              return value === undefined ? null : String(value);
            };
            resolve({ status: response.statusCode ?? 0, text, header });
          });
          response.once('error', (error) => reject(networkError(error)));
          response.once('close', () => reject(networkError()));
        });
        request.once('error', (error) => reject(networkError(error)));
        request.once('close', () => reject(networkError()));
      });
      if (body) {
        let answer = /** @type {Answer | null} */ (null);
        const early = answered.then((value) => (answer = value));
        early.catch(() => {});
        const writing = this.#write(request, body.source, body.start, body.stop, onSent ?? (() => {}), () => answer !== null);
        // Whoever is first: the answer may come before the body is through, and then no more of it is wanted.
        await Promise.race([writing, early]);
        writing.catch(() => {});
      } else {
        request.end();
      }
      const answer = await answered;
      if (!request.writableFinished) drop();
      return answer;
    } catch (error) {
      drop();
      if (signal.aborted) throw signal.reason;
      throw error instanceof UploadError ? error : networkError(error);
    } finally {
      signal.removeEventListener('abort', drop);
    }
  }

  /**
   * @param {import('node:http').ClientRequest} request
   * @param {Source | Blob} source
   * @param {number} start
   * @param {number} stop
   * @param {(bytes: number) => void} onSent
   * @param {() => boolean} over
   */
  async #write(request, source, start, stop, onSent, over) {
    let length = 64 * KIB;
    const buffers = this.#spare.pop() ?? [new Uint8Array(PART_MAX), new Uint8Array(PART_MAX)];
    const read = reader(source, buffers);
    /** @type {(error: UploadError) => void} */
    let failed = () => {};
    // Not every write is called back when its connection ends.
    request.once('close', () => failed(networkError()));
    let place = start;
    let next = read(place, Math.min(place + length, stop));
    next.catch(() => {});
    while (place < stop) {
      const part = await next;
      const end = place + part.length;
      if (part.length === 0 || end > stop) throw new UploadError('file_changed', 'The file has another size than it had.');
      if (end < stop) {
        next = read(end, Math.min(end + length, stop));
        next.catch(() => {});
      }
      if (over() || request.destroyed) return;
      const begun = now();
      await new Promise((resolve, reject) => {
        failed = reject;
        request.write(part, (error) => (error ? reject(networkError(error)) : resolve(null)));
      });
      place = end;
      onSent(place - start);
      // Small enough to tell of progress on slow networks, large enough to cost nothing on fast ones.
      const took = now() - begun;
      if (took < 20 && length < PART_MAX) length *= 2;
      else if (took > 200 && length > 16 * KIB) length /= 2;
    }
    // Of a body that fails, somebody may still have them in use.
    this.#spare.push(buffers);
    if (!request.destroyed) request.end();
  }

  close() {
    for (const sockets of Object.values(this.#agent.freeSockets)) for (const socket of sockets ?? []) socket.destroy();
  }
}

/**
 * A function that reads parts of a source one after the other; what it gave is good until it is called twice more.
 * @param {Source | Blob} source
 * @param {[Uint8Array, Uint8Array]} buffers of `PART_MAX` bytes, for sources that read into them
 * @returns {(start: number, stop: number) => Promise<Uint8Array>}
 */
function reader(source, buffers) {
  if (isBlob(source) || source.readInto === undefined) {
    return async (start, stop) => {
      try {
        const part = await sliceOf(source, start, stop);
        return isBlob(part) ? new Uint8Array(await part.arrayBuffer()) : part;
      } catch (error) {
        throw unreadable(error);
      }
    };
  }
  const { readInto } = source;
  let turn = 0;
  return async (start, stop) => {
    turn = 1 - turn;
    const buffer = /** @type {Uint8Array} */ (buffers[turn]).subarray(0, stop - start);
    try {
      return buffer.subarray(0, await readInto(start, buffer));
    } catch (error) {
      throw unreadable(error);
    }
  };
}

/** Places for bodies, so that a browser does not keep requests waiting that seem to stall then. */
class Places {
  /** @param {number} count */
  constructor(count) {
    this.#free = count;
  }

  #free;
  /** @type {Array<() => void>} */
  #waiting = [];

  /**
   * @param {AbortSignal} signal
   * @returns {Promise<() => void>} what gives the place back
   */
  async take(signal) {
    signal.throwIfAborted();
    if (this.#free > 0) {
      this.#free -= 1;
    } else {
      await new Promise((resolve, reject) => {
        const mine = () => {
          signal.removeEventListener('abort', away);
          resolve(null);
        };
        const away = () => {
          this.#waiting.splice(this.#waiting.indexOf(mine), 1);
          reject(signal.reason);
        };
        this.#waiting.push(mine);
        signal.addEventListener('abort', away, { once: true });
      });
    }
    let given = false;
    return () => {
      if (given) return;
      given = true;
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free += 1;
    };
  }
}

/** @type {Map<string, Places>} */
const placesOf = new Map();
/** Rates seen, by origin, for the next upload. @type {Map<string, number>} */
const ratesOf = new Map();

// ---- what is remembered

/** Keeps nothing beyond this object. */
export class MemoryStore {
  /** @type {Map<string, Entry>} */
  #entries = new Map();

  /** @param {string} fingerprint */
  async get(fingerprint) {
    return this.#entries.get(fingerprint) ?? null;
  }

  /**
   * @param {string} fingerprint
   * @param {Entry} entry
   */
  async set(fingerprint, entry) {
    this.#entries.set(fingerprint, { ...entry });
  }

  /** @param {string} fingerprint */
  async delete(fingerprint) {
    this.#entries.delete(fingerprint);
  }

  /** @returns {Promise<Array<[string, Entry]>>} */
  async list() {
    return [...this.#entries];
  }
}

/**
 * @param {string | null} text
 * @returns {Entry | null}
 */
function entryOf(text) {
  const found = text === null ? null : objectOf(text);
  if (found === null || typeof found.key !== 'string' || typeof found.endpoint !== 'string') return null;
  return /** @type {Entry} */ (/** @type {unknown} */ (found));
}

/** In the browser's localStorage. */
export class LocalStorageStore {
  /** @param {string} [prefix] of the keys */
  constructor(prefix = 'hmac-file-server upload ') {
    this.#prefix = prefix;
  }

  #prefix;

  /**
   * @param {string} fingerprint
   * @returns {Promise<Entry | null>}
   */
  async get(fingerprint) {
    return entryOf(localStorage.getItem(this.#prefix + fingerprint));
  }

  /**
   * @param {string} fingerprint
   * @param {Entry} entry
   */
  async set(fingerprint, entry) {
    localStorage.setItem(this.#prefix + fingerprint, JSON.stringify(entry));
  }

  /** @param {string} fingerprint */
  async delete(fingerprint) {
    localStorage.removeItem(this.#prefix + fingerprint);
  }

  /** @returns {Promise<Array<[string, Entry]>>} */
  async list() {
    /** @type {Array<[string, Entry]>} */
    const found = [];
    for (let index = 0; index < localStorage.length; index += 1) {
      const key = localStorage.key(index);
      if (key === null || !key.startsWith(this.#prefix)) continue;
      const entry = entryOf(localStorage.getItem(key));
      if (entry !== null) found.push([key.slice(this.#prefix.length), entry]);
    }
    return found;
  }
}

/** In the browser's IndexedDB, for workers, which have no localStorage. */
export class IndexedDBStore {
  /** @param {string} [name] of the database */
  constructor(name = 'hmac-file-server') {
    this.#name = name;
  }

  #name;

  /**
   * @template T
   * @param {IDBTransactionMode} mode
   * @param {(uploads: IDBObjectStore) => IDBRequest<T>} action
   * @returns {Promise<T>}
   */
  async #with(mode, action) {
    /** @type {IDBDatabase} */
    const database = await new Promise((resolve, reject) => {
      const opening = indexedDB.open(this.#name, 1);
      opening.onupgradeneeded = () => opening.result.createObjectStore('uploads');
      opening.onsuccess = () => resolve(opening.result);
      opening.onerror = () => reject(opening.error);
      opening.onblocked = () => reject(new Error('The database is in use by another version.'));
    });
    try {
      return await new Promise((resolve, reject) => {
        const transaction = database.transaction('uploads', mode);
        const request = action(transaction.objectStore('uploads'));
        transaction.oncomplete = () => resolve(request.result);
        transaction.onerror = transaction.onabort = () => reject(transaction.error);
      });
    } finally {
      database.close();
    }
  }

  /**
   * @param {string} fingerprint
   * @returns {Promise<Entry | null>}
   */
  async get(fingerprint) {
    return entryOf((await this.#with('readonly', (uploads) => uploads.get(fingerprint))) ?? null);
  }

  /**
   * @param {string} fingerprint
   * @param {Entry} entry
   */
  async set(fingerprint, entry) {
    await this.#with('readwrite', (uploads) => uploads.put(JSON.stringify(entry), fingerprint));
  }

  /** @param {string} fingerprint */
  async delete(fingerprint) {
    await this.#with('readwrite', (uploads) => uploads.delete(fingerprint));
  }

  /** @returns {Promise<Array<[string, Entry]>>} */
  async list() {
    /** @type {Array<[string, Entry]>} */
    const found = [];
    for (const key of await this.#with('readonly', (uploads) => uploads.getAllKeys())) {
      const entry = await this.get(String(key));
      if (entry !== null) found.push([String(key), entry]);
    }
    return found;
  }
}

/** In a folder, for Node: one file an upload, readable for its owner only. */
export class FileStore {
  /** @param {string} folder made when it is missing */
  constructor(folder) {
    this.#folder = folder;
  }

  #folder;

  /** @param {string} fingerprint */
  async #path(fingerprint) {
    /** @type {typeof import('node:crypto')} */
    const { createHash } = await nodeModule('crypto');
    /** @type {typeof import('node:path')} */
    const { join } = await nodeModule('path');
    return join(this.#folder, `${createHash('sha256').update(fingerprint).digest('hex')}.json`);
  }

  /** @returns {Promise<typeof import('node:fs/promises')>} */
  #files() {
    return nodeModule('fs/promises');
  }

  /**
   * @param {string} fingerprint
   * @returns {Promise<Entry | null>}
   */
  async get(fingerprint) {
    const { readFile } = await this.#files();
    try {
      return entryOf(await readFile(await this.#path(fingerprint), 'utf8'));
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return null;
      throw error;
    }
  }

  /**
   * @param {string} fingerprint
   * @param {Entry} entry
   */
  async set(fingerprint, entry) {
    const { mkdir, rename, writeFile } = await this.#files();
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    const path = await this.#path(fingerprint);
    const draft = `${path}.${process.pid}`;
    await writeFile(draft, JSON.stringify({ fingerprint, ...entry }), { mode: 0o600, flush: true });
    await rename(draft, path);
  }

  /** @param {string} fingerprint */
  async delete(fingerprint) {
    const { rm } = await this.#files();
    await rm(await this.#path(fingerprint), { force: true });
  }

  /** @returns {Promise<Array<[string, Entry]>>} */
  async list() {
    const { readdir, readFile } = await this.#files();
    /** @type {Array<[string, Entry]>} */
    const found = [];
    /** @type {string[]} */
    const names = await readdir(this.#folder).catch(() => []);
    for (const name of names.filter((each) => each.endsWith('.json'))) {
      const text = await readFile(`${this.#folder}/${name}`, 'utf8').catch(() => null);
      const entry = entryOf(text);
      const fingerprint = text === null ? undefined : objectOf(text)?.fingerprint;
      if (entry !== null && typeof fingerprint === 'string') found.push([fingerprint, entry]);
    }
    return found;
  }
}

/** @param {unknown} error */
const codeOf = (error) =>
  error !== null && typeof error === 'object' && 'code' in error ? String(error.code) : '';

/** @returns {SessionStore | null} */
function defaultStore() {
  if (inNode()) return null;
  try {
    if (typeof localStorage === 'object' && localStorage !== null) return new LocalStorageStore();
  } catch {
    // Storage is forbidden here; the other one may be, too, and then nothing is remembered.
  }
  return typeof indexedDB === 'object' && indexedDB !== null ? new IndexedDBStore() : null;
}

// ---- the network's own news

/**
 * @typedef {object} NetworkNews
 * @property {Set<string> | null} addresses those that this machine has now, where that can be known
 * @property {boolean} up whether a connection may work now that did not before
 * @property {boolean} [cut] whether there is no network at all
 */

/**
 * Calls back when the network has, or may have, changed, until it is stopped.
 * @param {(news: NetworkNews) => void} tell
 * @param {() => boolean} often whether news are waited for
 * @returns {Promise<() => void>}
 */
async function watchNetwork(tell, often) {
  if (inNode()) {
    /** @type {typeof import('node:os')} */
    const os = await nodeModule('os');
    const look = () => {
      /** @type {Set<string>} */
      const addresses = new Set();
      for (const each of Object.values(os.networkInterfaces())) {
        for (const { address, internal } of each ?? []) {
          if (!internal && !address.startsWith('fe80:')) addresses.add(address);
        }
      }
      return addresses;
    };
    let known = look();
    /** @type {ReturnType<typeof setTimeout>} */
    let timer;
    const again = () => {
      const found = look();
      const added = [...found].some((address) => !known.has(address));
      const changed = added || found.size !== known.size;
      known = found;
      if (changed) tell({ addresses: found, up: added });
      timer = setTimeout(again, often() ? LOOK_OFTEN : LOOK_EVERY);
    };
    timer = setTimeout(again, LOOK_EVERY);
    return () => clearTimeout(timer);
  }
  const scope = /** @type {Window & typeof globalThis} */ (globalThis);
  const connection = /** @type {EventTarget | undefined} */ (
    typeof navigator === 'object' && 'connection' in navigator ? navigator.connection : undefined
  );
  const offline = () => typeof navigator === 'object' && navigator.onLine === false;
  const down = () => tell({ addresses: null, up: false, cut: true });
  const up = () => (offline() ? down() : tell({ addresses: null, up: true }));
  const shown = () => {
    if (document.visibilityState === 'visible') up();
  };
  scope.addEventListener?.('online', up);
  scope.addEventListener?.('offline', down);
  scope.addEventListener?.('pageshow', up);
  connection?.addEventListener('change', up);
  if (typeof document === 'object') document.addEventListener('visibilitychange', shown);
  return () => {
    scope.removeEventListener?.('online', up);
    scope.removeEventListener?.('offline', down);
    scope.removeEventListener?.('pageshow', up);
    connection?.removeEventListener('change', up);
    if (typeof document === 'object') document.removeEventListener('visibilitychange', shown);
  };
}

/** Errors of Node that mean that this machine has no network. */
const UNREACHABLE = new Set(['ENETUNREACH', 'EHOSTUNREACH', 'ENETDOWN', 'EADDRNOTAVAIL', 'EHOSTDOWN']);

/**
 * Whether an attempt failed because this machine has no network at all.
 * @param {UploadError} error
 */
function withoutNetwork(error) {
  if (error.code !== 'network' && error.code !== 'timeout' && error.code !== 'stalled') return false;
  if (typeof navigator === 'object' && navigator.onLine === false) return true;
  const { cause } = error;
  const causes = cause instanceof AggregateError ? cause.errors : [cause];
  return causes.some((each) => UNREACHABLE.has(codeOf(each)));
}

// ---- the upload

/**
 * A body under way.
 * @typedef {object} Put
 * @property {Piece} piece
 * @property {AbortController} controller
 * @property {boolean} started false while it waits for a place
 * @property {number} sent bytes of the body that have left
 * @property {number} acked how far the chunk is there, from `piece.begin` on
 * @property {number} moved when anything of it was last seen to move
 * @property {number} doubts 0: none; 1: the status was asked for; 2: once more
 * @property {number} generation of connections; those of one generation fail together
 * @property {string} address its local address, if known
 * @property {boolean} touched whether the server may have something of it
 */

/**
 * One upload of one file. Events, all of them CustomEvent: `start` {sessionId, resumed, acknowledged}, `progress`
 * (a `Progress`), `chunk` {number}, `retry` {error, attempt, delay}, `pause`, `resume`, `offline`, `online`, `stall`,
 * `state` {state}, `done` (the `Result`), `error` {error}.
 */
export class NetworkResilientUploader extends EventTarget {
  /**
   * A file by its path, for Node: read in small parts, and never past what it was when this was called.
   * @param {string | URL} path
   * @returns {Promise<Source & {id: string}>} what the constructor takes as `file`
   */
  static async fromPath(path) {
    /** @type {typeof import('node:fs/promises')} */
    const { open, realpath, stat } = await nodeModule('fs/promises');
    /** @type {typeof import('node:path')} */
    const { basename } = await nodeModule('path');
    const whole = await realpath(path);
    const first = await stat(whole, { bigint: true });
    if (!first.isFile()) throw new UploadError('file_unreadable', 'That is no file.');
    /** @type {Promise<import('node:fs/promises').FileHandle> | null} */
    let opened = null;
    const handle = () => (opened ??= open(whole, 'r'));
    const check = async () => {
      const found = await (await handle()).stat({ bigint: true });
      if (found.size !== first.size || found.mtimeNs !== first.mtimeNs || found.ino !== first.ino) {
        throw new UploadError('file_changed', 'The file was changed while it was uploaded.');
      }
    };
    /** @type {NonNullable<Source['readInto']>} */
    const readInto = async (start, into) => {
      let count = 0;
      while (count < into.length) {
        const { bytesRead } = await (await handle()).read(into, count, into.length - count, start + count);
        if (bytesRead === 0) throw new UploadError('file_changed', 'The file has become shorter.');
        count += bytesRead;
      }
      return count;
    };
    return {
      id: `${whole} ${first.ino} ${first.mtimeNs}`,
      name: basename(whole),
      size: Number(first.size),
      type: '',
      lastModified: Number(first.mtimeMs),
      slice: async (start, stop) => {
        const into = new Uint8Array(stop - start);
        await readInto(start, into);
        return into;
      },
      readInto,
      check,
      close: async () => {
        const closing = opened;
        opened = null;
        await (await closing)?.close();
      },
    };
  }

  /**
   * @param {(Blob & {name?: string, lastModified?: number}) | Source} file
   * @param {string | URL} endpoint of the chunk API, `/upload/chunked` say; may be relative in a browser
   * @param {Options} [options]
   */
  constructor(file, endpoint, options = {}) {
    super();
    this.file = file;
    this.endpoint = String(endpoint);
    this.options = options;
    /** Bytes of a chunk; the session's own once there is one. */
    this.chunkSize = options.chunkSize || 5 * MIB;
    this.maxRetries = options.maxRetries ?? 5;
    this.#watchdog = Math.max(WATCHDOG_MIN, options.watchdog ?? WATCHDOG_MIN);
    this.#parallel = Math.max(1, Math.floor(options.parallel ?? 4));
  }

  #watchdog;
  #parallel;
  /** @type {State} */
  #state = 'idle';
  /** @type {URL | null} */
  #url = null;
  /** @type {Transport | null} */
  #transport = null;
  /** @type {SessionStore | null} */
  #store = null;
  #fingerprint = '';
  #key = '';
  /** @type {string | null} */
  #session = null;
  /** Whether the session was there before this object. */
  #resumed = false;
  /** What the server said last about when it forgets the session. @type {number | null} */
  #expiresAt = null;
  #created = 0;
  /** This machine's clock less the server's, in milliseconds. */
  #skew = 0;
  /** @type {Range[]} */
  #received = [];
  /** Whether the first chunk is to say how long chunks are. */
  #adopting = false;
  /** Whether it has been sent. */
  #adoptable = false;
  /** Chunks that were sent once more from their beginning. @type {Set<number>} */
  #whole = new Set();
  /** Chunks of which the server may hold more than it has told. @type {Set<number>} */
  #unsure = new Set();
  /** Whether there is reason to think that connections work again, before the server has said so. */
  #hoping = false;
  /** Whether the server has told how long chunks are and which of them it has, to this object. */
  #known = false;
  /** Whether the network has told of something new. */
  #news = true;
  /** Attempts since this machine has had no network. */
  #waits = 0;
  /** @type {Map<number, Put>} */
  #puts = new Map();
  /** @type {Set<{controller: AbortController, address: string, since: number}>} */
  #questions = new Set();
  /** @type {Result | null} */
  #result = null;
  #ending = new AbortController();
  /** @type {Promise<Result> | null} */
  #running = null;
  /** @type {{resolve: (result: Result) => void, reject: (error: unknown) => void} | null} */
  #outcome = null;
  #flowing = false;
  #recovering = false;
  /** Whether something has failed since the server was asked last. */
  #trouble = false;
  #generation = 0;
  #attempts = 0;
  /** When a failure counts again. */
  #countAfter = 0;
  /** When bytes were acknowledged last. */
  #progressed = -Infinity;
  #stalls = 0;
  #timeouts = 0;
  /** Milliseconds that an answer takes. */
  #answerTime = 0;
  #restarted = false;
  #paused = false;
  /** @type {Set<() => void>} */
  #wakers = new Set();
  #users = 0;
  /** @type {(() => void) | null} */
  #unwatch = null;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #ticker;
  #probing = false;
  #examining = false;
  /** Whether the network has changed since bodies were looked at. */
  #examinable = false;
  /** Whether there was no network at all since bodies were last examined. */
  #severed = false;
  #meter = new RateMeter(4000);
  #told = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #telling;

  /** @returns {State} */
  get state() {
    return this.#state;
  }

  /** @returns {Progress} */
  get progress() {
    const acknowledged = amount(this.#received);
    let sent = acknowledged;
    for (const put of this.#puts.values()) sent += Math.max(0, put.piece.begin + put.sent - put.acked);
    const total = this.file.size;
    const moving = this.#state === 'uploading';
    const rate = moving ? this.#meter.rate : 0;
    return { sent, acknowledged, total, rate, secondsLeft: this.#result ? 0 : rate > 0 ? (total - sent) / rate : null };
  }

  /**
   * Upload the file, or go on with an upload of it that was begun before. After a failure, or `abort()`, it may be
   * called again.
   * @returns {Promise<Result>} rejects with UploadError
   */
  upload() {
    if (this.#result) return Promise.resolve(this.#result);
    this.#running ??= this.#run().finally(() => {
      this.#running = null;
    });
    return this.#running;
  }

  /** Stop for now. What was sent is kept; `resume()` goes on. */
  pause() {
    if (this.#paused || !this.#running) return;
    this.#paused = true;
    this.#flowing = false;
    this.#dropAll(new UploadError('paused', 'The upload was paused.', { retriable: true }));
    this.#enter('paused');
    this.#tell('pause', {});
    this.#tellProgress(true);
  }

  /** Go on after `pause()`. */
  resume() {
    if (!this.#paused) return;
    this.#paused = false;
    this.#enter(this.#session === null ? 'starting' : 'uploading');
    this.#tell('resume', {});
    this.#wake();
    if (this.#outcome && this.#session !== null) this.#recover(null, false);
  }

  /**
   * End the upload; the promise of `upload()` rejects with UploadError `aborted`.
   * @param {{discard?: boolean, reason?: unknown}} [how] `discard`: have the server drop what it got, too
   * @returns {Promise<void>} settles when that is done, or could not be
   */
  async abort({ discard = false, reason } = {}) {
    if (this.#state === 'done') return;
    const session = this.#session;
    const transport = this.#transport;
    const url = this.#url;
    this.#end(new UploadError('aborted', 'The upload was aborted.', { cause: reason }), 'aborted');
    if (!discard) return;
    await this.#forget();
    this.#session = null;
    this.#key = '';
    this.#received = [];
    if (session === null || transport === null || url === null) return;
    const signal = AbortSignal.timeout(this.#bound());
    try {
      const headers = { 'X-Upload-Session-ID': session, ...(await this.#signed('DELETE', url, '', 0, false)) };
      await transport.send({ method: 'DELETE', url, headers, signal });
    } catch {
      // The server forgets it by itself, later.
    } finally {
      transport.close();
    }
  }

  /**
   * Begin a session, as `upload()` does by itself. Of the guide's interface.
   * @returns {Promise<{session_id: string, chunk_size: number, total_chunks: number}>} the server's answer and more;
   *   rejects with UploadError
   */
  async startSession() {
    await this.#activate();
    try {
      const document = await this.#retrying(() => this.#begin(), null, true);
      return /** @type {{session_id: string, chunk_size: number, total_chunks: number}} */ (
        /** @type {unknown} */ ({ ...document, chunk_size: this.chunkSize, total_chunks: Math.ceil(this.file.size / this.chunkSize) })
      );
    } finally {
      this.#deactivate();
    }
  }

  /**
   * Upload one chunk, or the rest of it. Of the guide's interface.
   * @param {string} sessionId
   * @param {number} chunkNumber from 0
   * @returns {Promise<Record<string, unknown>>} the server's answer; rejects with UploadError
   */
  async uploadChunk(sessionId, chunkNumber) {
    await this.#activate();
    try {
      if (this.#session !== sessionId) {
        this.#session = sessionId;
        this.#received = [];
        this.#known = false;
        await this.#retrying(() => this.#ask(), null, true);
      }
      for (;;) {
        const start = chunkNumber * this.chunkSize;
        const stop = Math.min(start + this.chunkSize, this.file.size);
        const begin = this.#whole.has(chunkNumber) ? start : Math.min(reach(this.#received, start), stop);
        if (begin >= stop) return await this.#retrying(() => this.#ask(), null, true);
        try {
          return await this.#start({ number: chunkNumber, start, begin, stop });
        } catch (error) {
          const failure = this.#judged(error, chunkNumber);
          await this.#retrying(() => this.#ask({ fresh: true }), failure, true);
        }
      }
    } finally {
      this.#deactivate();
    }
  }

  // ---- a run

  /** @returns {Promise<Result>} */
  async #run() {
    this.#paused = false;
    this.#flowing = false;
    this.#trouble = false;
    this.#recovering = false;
    this.#attempts = this.#stalls = this.#timeouts = 0;
    this.#restarted = false;
    this.#ending = new AbortController();
    /** @type {Promise<Result>} */
    const outcome = new Promise((resolve, reject) => {
      this.#outcome = { resolve, reject };
    });
    outcome.catch(() => {});
    const { signal } = this.options;
    const aborted = () => void this.abort({ reason: signal?.reason });
    let active = false;
    /** @type {(() => void) | null} */
    let unlock = null;
    try {
      this.#enter('starting');
      if (signal?.aborted) aborted();
      else signal?.addEventListener('abort', aborted, { once: true });
      this.#ending.signal.throwIfAborted();
      await this.#activate();
      active = true;
      unlock = await this.#remember();
      this.#ending.signal.throwIfAborted();
      this.#recover(null, false);
      return await outcome;
    } catch (error) {
      this.#fail(error);
      return await outcome;
    } finally {
      signal?.removeEventListener('abort', aborted);
      this.#outcome = null;
      unlock?.();
      if (active) this.#deactivate();
      await /** @type {Source} */ (this.file).close?.();
    }
  }

  /** Everything that requests need; undone by `#deactivate`. */
  async #activate() {
    this.#url ??= this.#resolved();
    if (this.#transport === null) {
      if (typeof XMLHttpRequest === 'function') this.#transport = new XhrTransport();
      else if (inNode()) this.#transport = await NodeTransport.of(this.#url, this.options.tls);
      else this.#transport = new FetchTransport();
    }
    this.#users += 1;
    if (this.#users > 1) return;
    this.#unwatch = await watchNetwork((news) => this.#networkChanged(news), () => this.#recovering);
    this.#ticker = setInterval(() => this.#tick(), Math.max(50, this.#watchdog / 20));
  }

  #deactivate() {
    this.#users -= 1;
    if (this.#users > 0) return;
    clearInterval(this.#ticker);
    clearTimeout(this.#telling);
    this.#telling = undefined;
    this.#unwatch?.();
    this.#unwatch = null;
    this.#transport?.close();
  }

  /** @returns {URL} */
  #resolved() {
    const base = typeof document === 'object' ? document.baseURI : typeof location === 'object' ? location.href : undefined;
    try {
      const url = new URL(this.endpoint, base);
      if (url.protocol === 'http:' || url.protocol === 'https:') return url;
    } catch {
      // Told below.
    }
    throw new UploadError('bad_endpoint', 'The endpoint must be an http or https URL, and absolute outside of browsers.');
  }

  /**
   * Find what is remembered of this upload.
   * @returns {Promise<(() => void) | null>} what lets others continue it, when this run is over
   */
  async #remember() {
    if (this.#session !== null) return null;
    const { store, fingerprint } = this.options;
    this.#store = store === undefined ? defaultStore() : store;
    if (this.#store === null) return null;
    const { file } = this;
    const url = /** @type {URL} */ (this.#url);
    this.#fingerprint = fingerprint
      ? await fingerprint(/** @type {Source | Blob} */ (file))
      : JSON.stringify([
          url.origin + url.pathname, this.#name(), file.size, file.lastModified ?? 0, this.#type(),
          'webkitRelativePath' in file ? file.webkitRelativePath : '', 'id' in file ? file.id : '',
          // Whose link it is decides where the file goes.
          hashed(this.options.ticket ?? ''),
        ]);
    const unlock = await locked(this.#fingerprint);
    if (unlock === null) {
      // Another tab continues it; two would take it from each other for ever.
      this.#store = null;
      return null;
    }
    await this.#sweep();
    const entry = await this.#store.get(this.#fingerprint).catch(() => null);
    if (entry === null) return unlock;
    if (entry.size !== file.size || (entry.expiresAt !== null && entry.expiresAt <= Date.now())) {
      await this.#forget();
      return unlock;
    }
    this.#key = entry.key;
    this.#session = entry.sessionId;
    this.#known = false;
    this.#created = entry.created;
    this.#resumed = entry.sessionId !== null;
    return unlock;
  }

  /** Forget what nobody can go on with any more: files that were changed, say, are found under another name. */
  async #sweep() {
    const time = Date.now();
    for (const [name, entry] of (await this.#store?.list().catch(() => [])) ?? []) {
      if ((entry.expiresAt ?? entry.created + UNANSWERED_AGE) < time) await this.#store?.delete(name).catch(() => {});
    }
  }

  async #save() {
    if (this.#store === null) return;
    /** @type {Entry} */
    const entry = {
      key: this.#key,
      sessionId: this.#session,
      endpoint: String(this.#url),
      name: this.#name(),
      size: this.file.size,
      created: this.#created,
      expiresAt: this.#expiresAt,
    };
    // An upload must not fail for want of a memory of it.
    await this.#store.set(this.#fingerprint, entry).catch(() => {});
  }

  async #forget() {
    await this.#store?.delete(this.#fingerprint).catch(() => {});
  }

  #name() {
    return this.options.name || this.file.name || 'file';
  }

  #type() {
    return this.options.type ?? this.file.type ?? '';
  }

  /** @param {unknown} error */
  #fail(error) {
    const failure = error instanceof UploadError ? error : new UploadError('internal', String(error), { cause: error });
    this.#end(failure, failure.code === 'aborted' ? 'aborted' : 'failed');
  }

  /**
   * @param {UploadError} error
   * @param {State} state
   */
  #end(error, state) {
    this.#ending.abort(error);
    this.#flowing = false;
    this.#dropAll(error);
    if (this.#outcome === null) {
      if (state === 'aborted') this.#enter(state);
      return;
    }
    const { reject } = this.#outcome;
    this.#outcome = null;
    // A session that cannot go on must not be found again.
    const hopeless = state === 'failed' && !error.retriable && error.status !== 401 && error.status !== 403 && error.status !== 0;
    if (hopeless) {
      this.#session = null;
      this.#key = '';
      this.#received = [];
      void this.#forget();
    }
    this.#enter(state);
    this.#tellProgress(true);
    if (state === 'failed') this.#tell('error', { error });
    reject(error);
  }

  /** @param {Record<string, unknown>} document of an upload that is complete */
  async #finish(document) {
    if (this.#result !== null) return;
    const { url, filename, size, session_id: id } = document;
    const digest = ['sha256', 'blake3'].find((name) => typeof document[name] === 'string');
    this.#result = {
      sessionId: typeof id === 'string' ? id : /** @type {string} */ (this.#session),
      filename: typeof filename === 'string' ? filename : this.#name(),
      size: typeof size === 'number' ? size : this.file.size,
      url: new URL(typeof url === 'string' ? url : '', /** @type {URL} */ (this.#url)).href,
      ...(digest === undefined ? {} : { digest: `${digest}:${document[digest]}` }),
    };
    this.#received = this.file.size > 0 ? [[0, this.file.size]] : [];
    this.#flowing = false;
    this.#dropAll(new UploadError('aborted', 'The upload is complete.'));
    const { rate } = this.#meter;
    if (rate > 0) ratesOf.set(/** @type {URL} */ (this.#url).origin, rate);
    await this.#forget();
    const outcome = this.#outcome;
    this.#outcome = null;
    if (outcome === null) return;
    this.#enter('done');
    this.#tellProgress(true);
    this.#tell('done', this.#result);
    outcome.resolve(this.#result);
  }

  // ---- trouble

  /**
   * Learn where the server is, after so many attempts as it takes, and go on from there.
   * @param {UploadError | null} error why
   * @param {boolean} counted whether it is one of the failures that `maxRetries` bounds
   */
  #recover(error, counted) {
    this.#flowing = false;
    this.#trouble = true;
    // What is begun before the server answers may have gone the way that is no more.
    if (error !== null) this.#examinable = true;
    if (this.#recovering) return;
    this.#recovering = true;
    const { signal } = this.#ending;
    const work = async () => {
      // Connections that end together are told of one after the other.
      if (error !== null) await this.#sleep(1, false);
      while (this.#trouble) {
        await this.#retrying(
          () => {
            // What has failed until now is what is asked about.
            this.#trouble = false;
            if (this.#session === null) return this.#begin();
            const answer = this.#ask({ fresh: true });
            this.#hope();
            return answer;
          },
          error,
          counted,
        );
        this.#generation += 1;
        // What has failed meanwhile is to be asked about as well, without another wait.
        counted = false;
        error = null;
        if (this.#paused) {
          await this.#unpaused();
          this.#trouble = true;
        }
      }
      while (this.#result === null && this.#session !== null && this.#complete()) {
        // All of it is there; it is being published.
        await this.#retrying(() => this.#ask({ wait: PUBLICATION_WAIT }), null, false);
        if (this.#result === null && this.#complete()) await this.#sleep(200, false);
      }
    };
    work().then(
      () => {
        this.#recovering = false;
        this.#hoping = false;
        if (signal.aborted || this.#result !== null) return;
        this.#flowing = true;
        this.#enter('uploading');
        this.#pump();
        const reason = new UploadError('network', 'The network has changed.', { retriable: true });
        if (this.#examinable) setTimeout(() => void this.#examine(reason), this.#soon());
      },
      (failure) => {
        this.#recovering = false;
        if (!signal.aborted) this.#fail(failure);
      },
    );
  }

  /**
   * Do not wait for the answer with what it says nothing about: chunks of which the server can have nothing. It
   * spares every switch of networks a round trip.
   */
  #hope() {
    if (!this.#known || this.#paused || this.#adopting || (!this.#news && (this.#attempts > 1 || this.#state === 'offline'))) return;
    this.#news = false;
    this.#hoping = true;
    this.#pump();
  }

  #complete() {
    return amount(this.#received) === this.file.size;
  }

  /**
   * Do something until it succeeds.
   * @template T
   * @param {() => Promise<T>} action
   * @param {UploadError | null} error of an attempt before
   * @param {boolean} counted
   * @returns {Promise<T>} rejects with the error that is final
   */
  async #retrying(action, error, counted) {
    for (;;) {
      if (error !== null) await this.#backOff(error, counted);
      await this.#unpaused();
      try {
        const result = await action();
        if (this.#state === 'offline') this.#tell('online', {});
        if (this.#state === 'offline' || this.#state === 'waiting') this.#enter(this.#session === null ? 'starting' : 'uploading');
        return result;
      } catch (failure) {
        this.#ending.signal.throwIfAborted();
        this.#hoping = false;
        error = this.#judged(failure, null);
        counted = error.code !== 'paused';
      }
    }
  }

  /**
   * Wait as long as the error calls for.
   * @param {UploadError} error
   * @param {boolean} counted
   * @returns {Promise<void>} rejects with the error if it is final
   */
  async #backOff(error, counted) {
    if (error.code === 'paused') return;
    if (gone(error) && this.#session !== null) {
      if (this.#restarted && !this.#resumed) throw error;
      // One that was remembered from before may well be gone; one of this run must not be, more than once.
      this.#restarted = !this.#resumed;
      this.#renew();
      this.#tell('retry', { error, attempt: this.#attempts, delay: 0 });
      return;
    }
    if (!error.retriable) throw error;
    if (withoutNetwork(error)) {
      if (this.#state !== 'offline') {
        this.#enter('offline');
        this.#tell('offline', {});
      }
      // An address often comes a moment before its route.
      await this.#sleep(Math.min(1000, LOOK_OFTEN * 2 ** Math.min(this.#waits, 10)) * (1 + Math.random()), true);
      this.#waits += 1;
      return;
    }
    // Browsers do not always tell that there is a network again. For half a minute after the last progress it is looked
    // for more often than attempts are counted.
    const searching = error.code === 'network' && now() - this.#progressed < SEARCH_FOR;
    if (searching && now() < this.#countAfter) {
      await this.#sleep(SEARCH_EVERY * (0.5 + Math.random()), true);
      return;
    }
    if (counted) this.#attempts += 1;
    if (this.#attempts > this.maxRetries) throw error;
    const { base = 1000, max = 30_000 } = this.options.retryDelay ?? {};
    const soon = this.#attempts <= 1 && (error.status === 0 || error.status < 429);
    const asked = error.retryAfter === null ? 0 : error.retryAfter * 1000;
    const delay = Math.max(asked, soon ? 0 : backoff(this.#attempts, base, max));
    this.#tell('retry', { error, attempt: this.#attempts, delay });
    if (delay === 0) return;
    if (this.#state !== 'offline') this.#enter('waiting');
    // A new network mends what the old one did, but not a server that wants to be left alone.
    this.#countAfter = searching ? now() + delay : 0;
    await this.#sleep(searching ? Math.min(delay, SEARCH_EVERY * (0.5 + Math.random())) : delay, asked < delay);
  }

  /** Forget the session, so that another is begun. */
  #renew() {
    this.#dropAll(new UploadError('paused', 'The upload begins anew.', { retriable: true }));
    this.#session = null;
    this.#resumed = false;
    this.#key = '';
    this.#received = [];
    this.#whole.clear();
    this.#unsure.clear();
    this.#expiresAt = null;
    this.#meter.reset();
  }

  /**
   * What an error means here.
   * @param {unknown} error
   * @param {number | null} chunk number of the chunk that it befell
   * @returns {UploadError} rejected by throwing it, when it is none of ours
   */
  #judged(error, chunk) {
    if (!(error instanceof UploadError)) throw error;
    if (error.code === 'key_reused' && !this.#restarted) {
      this.#restarted = true;
      this.#key = '';
      return withRetry(error);
    }
    if (chunk === null || error.retriable || !MISFITS.has(error.code)) return error;
    // Another chunk may have come to the server before the first.
    if (this.#adopting && chunk > 0) return withRetry(error);
    if (this.#whole.has(chunk)) return error;
    this.#whole.add(chunk);
    return withRetry(error);
  }

  /** @returns {Promise<void>} settles when the upload is not, or no longer, paused */
  async #unpaused() {
    while (this.#paused) await this.#sleep(1_000_000, true);
    this.#ending.signal.throwIfAborted();
  }

  /**
   * @param {number} milliseconds
   * @param {boolean} interruptible by news of the network
   * @returns {Promise<void>} rejects when the upload ends
   */
  async #sleep(milliseconds, interruptible) {
    const { signal } = this.#ending;
    signal.throwIfAborted();
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    /** @type {() => void} */
    let wake = () => {};
    try {
      await new Promise((resolve, reject) => {
        wake = () => resolve(null);
        timer = setTimeout(wake, milliseconds);
        signal.addEventListener('abort', wake, { once: true });
        if (interruptible) this.#wakers.add(wake);
      });
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', wake);
      this.#wakers.delete(wake);
    }
    signal.throwIfAborted();
  }

  #wake() {
    for (const wake of [...this.#wakers]) wake();
  }

  /** @param {UploadError} reason */
  #dropAll(reason) {
    for (const put of this.#puts.values()) put.controller.abort(reason);
    for (const { controller } of this.#questions) controller.abort(reason);
  }

  /** @param {NetworkNews} news */
  #networkChanged({ addresses, up, cut = false }) {
    if (cut) this.#severed = true;
    const lost = (/** @type {string} */ address) =>
      addresses !== null && address !== '' && !isLoopback(address) && !addresses.has(plain(address));
    const reason = new UploadError('network', 'The network has changed.', { retriable: true });
    for (const put of this.#puts.values()) {
      if (lost(put.address)) put.controller.abort(reason);
    }
    const patience = this.#soon();
    for (const question of this.#questions) {
      if (lost(question.address) || (up && now() - question.since > patience)) {
        question.controller.abort(reason);
      } else if (up) {
        // It may have been asked on the way that is no more.
        setTimeout(() => this.#questions.has(question) && question.controller.abort(reason), patience);
      }
    }
    if (!up) return;
    this.#examinable = true;
    this.#news = true;
    this.#waits = 0;
    this.#wake();
    void this.#examine(reason);
  }

  /** @returns {number} milliseconds in which a connection that works shows that it does */
  #soon() {
    return Math.max(QUIET, 2 * this.#answerTime);
  }

  /**
   * Drop bodies that a change of the network has left behind: those of which nothing has moved between two looks. When
   * there was no network at all in between, which seldom leaves a connection alive, a shorter look will do.
   * @param {UploadError} reason
   */
  async #examine(reason) {
    if (this.#examining) return;
    this.#examining = true;
    try {
      for (let failures = 0; failures < EXAMINATIONS && this.#examinable && this.#flowing && this.#puts.size > 0; ) {
        this.#examinable = false;
        try {
          await this.#examineOnce(reason);
        } catch {
          this.#ending.signal.throwIfAborted();
          // The new network is not of use yet. Without a word of the server the watchdog decides in the end.
          failures += 1;
          this.#examinable = true;
          await this.#sleep(QUIET, true);
        }
      }
    } catch {
      // It has ended.
    } finally {
      this.#examining = false;
    }
  }

  /** @param {UploadError} reason */
  async #examineOnce(reason) {
    const severed = this.#severed;
    this.#severed = false;
    const looks = (/** @type {Put[]} */ puts) => puts.map((put) => ({ put, sent: put.sent, acked: put.acked }));
    const mine = (/** @type {Put} */ put) => this.#puts.get(put.piece.number) === put && put.started;
    const before = looks([...this.#puts.values()]);
    try {
      await this.#ask({ fresh: true });
    } catch (error) {
      this.#severed ||= severed;
      throw error;
    }
    if (severed) {
      // What was acknowledged may have come to the server before the cut, so it says nothing of the connection.
      for (const { put, sent } of before) if (mine(put) && put.sent === sent) put.controller.abort(reason);
    }
    const seen = looks([...this.#puts.values()].filter(mine));
    if (seen.length === 0) return;
    await this.#sleep(this.#soon(), false);
    await this.#ask();
    for (const { put, sent, acked } of seen) {
      if (mine(put) && put.sent === sent && put.acked === acked) put.controller.abort(reason);
    }
  }

  // ---- the watchdog

  /** @returns {number} milliseconds without movement that are borne */
  #patience() {
    return Math.max(this.#watchdog, 4 * this.#answerTime) * 2 ** Math.min(this.#stalls, 3);
  }

  /** @returns {number} milliseconds that a question may take */
  #bound() {
    // To ask once more is cheap and harms nobody, so where answers are known to be quick they are not waited for long.
    const least = this.#answerTime === 0 ? this.#watchdog : QUESTION_MIN;
    return Math.min(BOUND_MAX, Math.max(least, 4 * this.#answerTime) * 2 ** Math.min(this.#timeouts, 4));
  }

  #tick() {
    const limit = this.#patience();
    const time = now();
    for (const put of [...this.#puts.values()]) {
      if (!put.started) continue;
      const quiet = time - put.moved;
      if (quiet < limit / 2) continue;
      if (put.doubts === 0) {
        put.doubts = 1;
        this.#probe();
      } else if (quiet >= limit && put.doubts === 1) {
        // No word of the server since: the network is dead.
        this.#stalled(put);
      } else if (quiet >= limit && put.doubts === 2) {
        put.doubts = 3;
        this.#probe();
      } else if (quiet >= 2 * limit) {
        this.#stalled(put);
      }
    }
    if (this.#puts.size > 0) this.#tellProgress(false);
  }

  /** Ask how far bodies are that seem to stand still: all of one may be on its way through a slow network. */
  #probe() {
    if (this.#probing) return;
    this.#probing = true;
    const doubted = [...this.#puts.values()].filter((put) => put.doubts > 0);
    this.#ask()
      .then(() => {
        for (const put of doubted) {
          if (this.#puts.get(put.piece.number) !== put || put.doubts === 0) continue;
          if (put.doubts === 1) put.doubts = 2;
          else if (put.doubts === 3) this.#stalled(put);
        }
      })
      .catch(() => {
        // The tick to come decides.
      })
      .finally(() => {
        this.#probing = false;
      });
  }

  /** @param {Put} put */
  #stalled(put) {
    if (put.generation === this.#generation) this.#stalls += 1;
    this.#tell('stall', {});
    put.controller.abort(new UploadError('stalled', 'Nothing moved any more.', { retriable: true }));
  }

  // ---- requests

  /**
   * @param {string} method
   * @param {URL} url
   * @param {string} filename
   * @param {number} size
   * @param {boolean} beginning
   * @returns {Promise<Record<string, string>>}
   */
  async #signed(method, url, filename, size, beginning) {
    const { headers, ticket, signature, signChunks } = this.options;
    if (!beginning && !signChunks) return {};
    const given = typeof headers === 'function' ? await headers({ method, url: url.href, path: url.pathname, filename, size }) : headers;
    return {
      ...(ticket ? { Authorization: `Bearer ${ticket}` } : {}),
      ...(signature ? { 'X-Signature': signature } : {}),
      ...given,
    };
  }

  /**
   * A request without a body, which is answered in time or fails.
   * @param {string} method
   * @param {URL} url
   * @param {Record<string, string>} headers
   * @param {{fresh?: boolean, more?: number}} how `more`: milliseconds that the answer may take besides
   * @returns {Promise<Record<string, unknown>>} the JSON object of the answer
   */
  async #question(method, url, headers, { fresh = false, more = 0 }) {
    const { signal } = this.#ending;
    signal.throwIfAborted();
    const controller = new AbortController();
    const question = { controller, address: '', since: now() };
    const bound = this.#bound() + more;
    const timer = setTimeout(() => {
      this.#timeouts += 1;
      controller.abort(new UploadError('timeout', 'The server did not answer in time.', { retriable: true }));
    }, bound);
    this.#questions.add(question);
    try {
      const answer = await /** @type {Transport} */ (this.#transport).send({
        method, url, headers, fresh,
        signal: controller.signal,
        onAddress: (address) => {
          question.address = address;
        },
      });
      this.#timeouts = 0;
      if (more === 0) {
        const took = now() - question.since;
        this.#answerTime = Math.max(took, this.#answerTime === 0 ? took : 0.7 * this.#answerTime + 0.3 * took);
      }
      if (answer.status < 200 || answer.status > 299) throw errorOf(answer);
      const document = objectOf(answer.text);
      if (document === null) throw badAnswer(answer.status);
      return document;
    } finally {
      clearTimeout(timer);
      this.#questions.delete(question);
    }
  }

  /** @returns {Promise<Record<string, unknown>>} the answer to the beginning of a session */
  async #begin() {
    const url = /** @type {URL} */ (this.#url);
    const { size } = this.file;
    await /** @type {Source} */ (this.file).check?.();
    if (this.#key === '') {
      this.#key = randomKey();
      this.#created = Date.now();
      this.#expiresAt = null;
    }
    await this.#save();
    const name = encodeURIComponent(this.#name());
    const type = this.#type();
    const document = await this.#question('POST', url, {
      'X-Filename': name,
      'X-Total-Size': String(size),
      'Idempotency-Key': this.#key,
      ...(type ? { 'Content-Type': type } : {}),
      ...(await this.#signed('POST', url, name, size, true)),
    }, {});
    const { session_id: id, chunk_size: announced } = document;
    if (typeof id !== 'string' || typeof announced !== 'number' || announced < 1) {
      throw badAnswer();
    }
    this.#session = id;
    const seconds = Number.parseInt(id, 10);
    if (seconds > 1e9) this.#skew = Date.now() - seconds * 1000;
    this.#learn(document);
    this.#known = true;
    this.#adopt(announced);
    await this.#save();
    this.#tell('start', { sessionId: id, resumed: false, acknowledged: 0 });
    this.#enter('uploading');
    if (document.completed === true) await this.#finish(document);
    return document;
  }

  /**
   * Choose how long chunks are to be, of a session that has none.
   * @param {number} announced
   */
  #adopt(announced) {
    const origin = /** @type {URL} */ (this.#url).origin;
    this.chunkSize = chunkLength({
      total: this.file.size,
      announced,
      parallel: this.#parallel,
      rate: ratesOf.get(origin) ?? null,
      whole: this.options.digest === 'sha-256',
      ...(this.options.chunkSize ? { wanted: this.options.chunkSize } : {}),
    });
    this.#adopting = this.chunkSize !== announced;
    this.#adoptable = false;
  }

  /**
   * Learn how far the upload is.
   * @param {{fresh?: boolean, wait?: number}} [how] `wait`: seconds to wait for a change
   * @returns {Promise<Record<string, unknown>>}
   */
  async #ask({ fresh = false, wait = 0 } = {}) {
    const url = statusUrl(/** @type {URL} */ (this.#url));
    const session = this.#session;
    const asked = [...this.#unsure];
    url.searchParams.set('session_id', session ?? '');
    if (wait > 0) url.searchParams.set('wait', String(wait));
    const document = await this.#question('GET', url, await this.#signed('GET', url, '', 0, false), { fresh, more: wait * 1000 });
    if (session !== this.#session) return document;
    const before = this.#expiresAt;
    for (const number of asked) this.#unsure.delete(number);
    this.#learn(document);
    this.#known = true;
    const size = document.chunk_size;
    if (typeof size === 'number' && size > 0 && document.completed !== true) {
      if (size === this.chunkSize) {
        this.#adopting = false;
      } else if (this.#received.length > 0) {
        this.chunkSize = size;
        this.#adopting = false;
      } else if (!this.#puts.has(0)) {
        this.#adopt(size);
      }
    }
    if (this.#expiresAt !== before) await this.#save();
    if (this.#resumed) {
      this.#resumed = false;
      this.#tell('start', { sessionId: session, resumed: true, acknowledged: amount(this.#received) });
    }
    if (document.completed === true) await this.#finish(document);
    else if (this.#adopting === false) this.#pump();
    return document;
  }

  /** @param {Record<string, unknown>} document of any answer */
  #learn(document) {
    if (typeof document.expires_at === 'string') {
      const moment = Date.parse(document.expires_at);
      if (!Number.isNaN(moment)) this.#expiresAt = moment + this.#skew;
    }
    if (!Array.isArray(document.received)) return;
    const before = amount(this.#received);
    this.#received = joined([...this.#received, .../** @type {Range[]} */ (document.received)]);
    if (amount(this.#received) > before) {
      this.#attempts = 0;
      this.#stalls = 0;
      this.#countAfter = 0;
      this.#progressed = now();
    }
    for (const put of this.#puts.values()) {
      const acked = Math.min(put.piece.stop, reach(this.#received, put.piece.begin));
      if (acked > put.acked) {
        put.acked = acked;
        put.moved = now();
        put.doubts = 0;
      }
    }
    this.#tellProgress(false);
  }

  // ---- bodies

  /** How many bodies at once the network is worth. */
  #width() {
    if (this.#adopting && !this.#adoptable) return 1;
    const { rate } = this.#meter;
    if (rate === 0) {
      const connection = typeof navigator === 'object' && 'connection' in navigator ? navigator.connection : undefined;
      const kind = connection !== null && typeof connection === 'object' && 'effectiveType' in connection ? connection.effectiveType : '';
      return kind === 'slow-2g' || kind === '2g' ? 1 : this.#parallel;
    }
    return Math.max(1, Math.min(this.#parallel, Math.floor(rate / LANE_RATE)));
  }

  /** Begin as many bodies as there should be. */
  #pump() {
    if (!this.#known || !(this.#flowing || this.#hoping) || this.#paused || this.#result !== null) return;
    const width = this.#width();
    const busy = new Set([...this.#puts.keys(), ...this.#unsure]);
    for (const piece of pieces(this.#received, this.chunkSize, this.file.size, busy)) {
      // The rest of a chunk that was cut gets one place more, so that rests do not pile up behind those chunks that
      // were begun before the server had told of them.
      if (this.#puts.size >= width + (piece.begin > piece.start ? 1 : 0)) return;
      if (this.#whole.has(piece.number)) piece.begin = piece.start;
      this.#start(piece).then(
        () => {
          if (this.#result === null) this.#pump();
        },
        (error) => this.#failed(piece.number, error),
      );
    }
    // What is left is to be asked about, or to be published.
    if (this.#flowing && this.#puts.size === 0) this.#recover(null, false);
  }

  /**
   * @param {number} number of the chunk
   * @param {unknown} error
   */
  #failed(number, error) {
    if (this.#ending.signal.aborted || this.#result !== null) return;
    try {
      const failure = this.#judged(error, number);
      if (failure.code === 'paused') return;
      this.#hoping = false;
      if (!failure.retriable && !(gone(failure) && this.#session !== null)) throw failure;
      this.#recover(failure, this.#failing !== this.#generation);
      this.#failing = this.#generation;
    } catch (final) {
      this.#fail(final);
    }
  }

  /** The generation of connections that has failed already. */
  #failing = -1;

  /**
   * Send a body.
   * @param {Piece} piece
   * @returns {Promise<Record<string, unknown>>} the answer
   */
  async #start(piece) {
    /** @type {Put} */
    const put = {
      piece, controller: new AbortController(), started: false, sent: 0, acked: piece.begin, moved: now(), doubts: 0,
      generation: this.#generation, address: '', touched: false,
    };
    const session = this.#session;
    this.#puts.set(piece.number, put);
    try {
      return await this.#send(put);
    } catch (error) {
      if (put.touched && session === this.#session) this.#unsure.add(piece.number);
      throw error;
    } finally {
      if (this.#puts.get(piece.number) === put) this.#puts.delete(piece.number);
      this.#tellProgress(false);
    }
  }

  /**
   * @param {Put} put
   * @returns {Promise<Record<string, unknown>>}
   */
  async #send(put) {
    const { piece, controller: { signal } } = put;
    const url = /** @type {URL} */ (this.#url);
    const source = /** @type {Source | Blob} */ (this.file);
    const session = this.#session ?? '';
    await /** @type {Source} */ (this.file).check?.();
    const digest = await this.#digest(piece);
    const free = inNode() ? null : await this.#places(url.origin).take(signal);
    let answer;
    try {
      const signed = await this.#signed('PUT', url, '', piece.stop - piece.begin, false);
      put.started = true;
      put.moved = now();
      answer = await /** @type {Transport} */ (this.#transport).send({
        method: 'PUT',
        url,
        headers: {
          'X-Upload-Session-ID': session,
          'X-Chunk-Number': String(piece.number),
          ...(piece.begin > piece.start ? { 'X-Chunk-Offset': String(piece.begin - piece.start) } : {}),
          'Content-Type': 'application/octet-stream',
          ...(digest ? { 'Content-Digest': digest } : {}),
          ...signed,
        },
        body: { source, start: piece.begin, stop: piece.stop },
        signal,
        onSent: (sent) => this.#moved(put, sent),
        onAddress: (address) => {
          put.address = address;
          put.touched = true;
          put.moved = now();
        },
      });
    } finally {
      free?.();
    }
    await /** @type {Source} */ (this.file).check?.();
    if (answer.status < 200 || answer.status > 299) throw errorOf(answer);
    const document = objectOf(answer.text);
    if (document === null || document.success !== true) {
      throw badAnswer(answer.status);
    }
    if (session !== this.#session) throw new UploadError('paused', 'The upload began anew.', { retriable: true });
    // Before the next is begun, so that what is there counts.
    this.#puts.delete(piece.number);
    this.#adopting = false;
    this.#learn({ ...document, received: [...(Array.isArray(document.received) ? document.received : []), [piece.begin, piece.stop]] });
    this.#tell('chunk', { number: piece.number });
    if (document.completed === true) await this.#finish({ ...document, session_id: session });
    return document;
  }

  /**
   * @param {Put} put
   * @param {number} sent
   */
  #moved(put, sent) {
    if (sent <= put.sent) return;
    this.#meter.add(sent - put.sent);
    const first = put.sent === 0;
    put.sent = sent;
    put.moved = now();
    put.doubts = 0;
    if (first && this.#adopting) {
      // The server will have seen how long the first chunk is before the others come, which need connections first.
      this.#adoptable = true;
      this.#pump();
    }
    this.#tellProgress(false);
  }

  /** @param {string} origin */
  #places(origin) {
    let places = placesOf.get(origin);
    if (places === undefined) placesOf.set(origin, (places = new Places(BODIES_MAX)));
    return places;
  }

  /**
   * The value of Content-Digest for a body (RFC 9530), or null where it gets none: the server keeps nothing of a
   * body with a digest that is cut, so only those have one that lose little by it.
   * @param {Piece} piece
   * @returns {Promise<string | null>}
   */
  async #digest(piece) {
    const { digest = 'auto' } = this.options;
    if (digest === false || typeof crypto !== 'object' || !crypto.subtle) return null;
    const length = piece.stop - piece.begin;
    if (digest === 'auto' && length > DIGEST_MAX) return null;
    const part = await sliceOf(/** @type {Source | Blob} */ (this.file), piece.begin, piece.stop).catch((error) => {
      throw unreadable(error);
    });
    const bytes = isBlob(part) ? new Uint8Array(await part.arrayBuffer().catch((error) => { throw unreadable(error); })) : part;
    const sum = new Uint8Array(await crypto.subtle.digest('SHA-256', /** @type {BufferSource} */ (bytes)));
    return `sha-256=:${btoa(String.fromCharCode(...sum))}:`;
  }

  // ---- events

  /** @param {State} state */
  #enter(state) {
    if (this.#state === state || (this.#paused && state !== 'paused' && state !== 'aborted' && state !== 'failed' && state !== 'done')) return;
    this.#state = state;
    this.#tell('state', { state });
  }

  /**
   * @param {string} name
   * @param {unknown} detail
   */
  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  /** @param {boolean} atOnce */
  #tellProgress(atOnce) {
    // Requests that end late change nothing any more.
    if (!atOnce && (this.#state === 'done' || this.#state === 'failed' || this.#state === 'aborted')) return;
    const wait = this.#told + PROGRESS_EVERY - now();
    if (atOnce || wait <= 0) {
      clearTimeout(this.#telling);
      this.#telling = undefined;
      this.#told = now();
      this.#tell('progress', this.progress);
    } else if (this.#telling === undefined && this.#users > 0) {
      this.#telling = setTimeout(() => this.#tellProgress(true), wait);
    }
  }
}

/** @param {UploadError} error */
function withRetry(error) {
  error.retriable = true;
  return error;
}

/** @returns {string} 128 random bits */
function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/**
 * 32 bits of a text, by FNV-1a: they tell texts apart and give none away.
 * @param {string} text
 */
function hashed(text) {
  let hash = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  return text === '' ? '' : (hash >>> 0).toString(16);
}

/** @param {string} address */
const plain = (address) => address.replace(/^::ffff:/, '');

/** @param {string} address */
const isLoopback = (address) => address === '::1' || plain(address).startsWith('127.');

/**
 * Keep other tabs from continuing the same upload.
 * @param {string} name
 * @returns {Promise<(() => void) | null>} what lets them; null when one of them does already
 */
async function locked(name) {
  if (typeof navigator !== 'object' || !('locks' in navigator) || !navigator.locks) return () => {};
  return new Promise((resolve) => {
    navigator.locks
      .request(`hmac-file-server upload ${name}`, { ifAvailable: true }, (lock) => {
        if (lock === null) {
          resolve(null);
          return undefined;
        }
        return new Promise((release) => resolve(() => release(null)));
      })
      .catch(() => resolve(() => {}));
  });
}
