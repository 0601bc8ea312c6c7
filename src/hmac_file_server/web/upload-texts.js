// @ts-check
/**
 * Every text of the upload page, by language, and the numbers, sizes and times in it.
 *
 * Another language is another table with the same keys in {@link LANGUAGES}. A text may have `{names}` that are
 * filled in; one that depends on a `{count}` is a table by plural category (CLDR, as in Intl.PluralRules), of which
 * only `other` is needed in every language.
 */

/** @typedef {string | {zero?: string, one?: string, two?: string, few?: string, many?: string, other: string}} Text */
/** @typedef {keyof typeof ENGLISH} TextKey */
/** @typedef {Readonly<Record<TextKey, Text>>} TextTable */
/** @typedef {Readonly<Record<string, string | number>>} Values */

const ENGLISH = {
  title: 'Send files',
  titleRunning: '{percent} – Send files',
  titlePaused: 'Paused – Send files',
  titleOffline: 'No connection – Send files',
  titleDone: 'Done – Send files',
  skip: 'Skip to the list of files',
  intro: 'Your files go straight to the server. If the network drops, they go on where they stopped.',

  limitSize: 'Files up to {size}',
  limitFiles: { one: 'Takes {count} file', other: 'Takes {count} files' },
  limitFilesLeft: { one: 'Takes {count} file, {left} more', other: 'Takes {count} files, {left} more' },
  limitUntil: 'Open until {time}',
  limitsLabel: 'What this link takes',

  drop: 'Drop files or folders anywhere on this page',
  dropShort: 'Add more, or drop them anywhere on this page',
  dropNow: 'Let go to add them',
  dropNowClosed: 'This page takes no files',
  chooseFiles: 'Choose files',
  chooseFolder: 'Choose a folder',

  filesHeading: 'Files',
  totalHeading: 'All files',
  totalLabel: 'All files, progress',
  totalCount: { one: '{done} of {count} file done', other: '{done} of {count} files done' },
  totalFailed: { one: '{count} needs your attention', other: '{count} need your attention' },
  fileLabel: '{name}, progress',
  amount: '{sent} of {total}',
  left: '{time} left',

  stateQueued: 'Waits for its turn',
  stateStarting: 'Begins',
  stateFinishing: 'Everything is sent; the server finishes it',
  stateOffline: 'No connection; goes on by itself',
  stateWaiting: { one: 'No answer; tries again in {count} second', other: 'No answer; tries again in {count} seconds' },
  stateWaitingNow: 'No answer; tries again now',
  stateServerTrouble: {
    one: 'The server is busy or in trouble; asks again in {count} second',
    other: 'The server is busy or in trouble; asks again in {count} seconds',
  },
  statePaused: 'Paused at {percent}',
  stateDone: 'Done, {size}',
  stateResumable: '{percent} are there already. Continue when you like.',
  stateChooseAgain: '{percent} are there already. Choose the file again to continue.',
  stateChooseFromStart: 'Nothing of it is there yet. Choose the file again to begin.',

  pause: 'Pause',
  resume: 'Resume',
  remove: 'Remove',
  hide: 'Remove from the list',
  retry: 'Try again',
  continueUpload: 'Continue',
  chooseAgain: 'Choose again',
  copyLink: 'Copy link',
  copied: 'Copied',
  copyAll: 'Copy all links',
  showQr: 'QR code',
  pauseAll: 'Pause all',
  resumeAll: 'Resume all',
  retryAll: 'Try all again',
  clearDone: 'Clear finished',
  forFile: '{action}: {name}',

  offline: 'No connection. Nothing is lost; it goes on by itself when the network is back.',
  serverAway: 'The server does not answer at the moment. Nothing is lost; it goes on by itself.',
  resumable: {
    one: 'There is an unfinished upload from before. What has arrived is kept.',
    other: 'There are {count} unfinished uploads from before. What has arrived is kept.',
  },
  noMemory: 'This browser keeps nothing for later here (a private window?). Leave the page open until all is done.',

  refusedHeading: { one: '{count} file was not added', other: '{count} files were not added' },
  refusedSize: '{name} has {size}. This link takes files up to {limit}.',
  refusedType: '{name} is of another type. This link takes {type} only.',
  refusedCount: {
    one: '{name}: this link takes {count} file in all.',
    other: '{name}: this link takes {count} files in all.',
  },
  refusedTwice: '{name} is in the list already.',
  refusedUnreadable: '{name} cannot be read.',
  refusedEmpty: 'There was no file in what you added.',
  refusedMore: { one: 'And {count} more.', other: 'And {count} more.' },
  refusedOther: 'This is not the same file, or it was changed since: {name} is expected, {size}.',
  dismiss: 'Close this message',

  expiredHeading: 'This link has expired',
  expiredText: 'It was open until {time}. Ask the person who gave it to you for a new one.',
  expiredTextNoTime: 'Ask the person who gave it to you for a new one.',
  expiredRunning: 'What has begun may still be finished.',
  usedUpHeading: 'This link has been used up',
  usedUpText: 'All the files that it takes have been uploaded. Ask the person who gave it to you for a new one.',
  badLinkHeading: 'This link does not work',
  badLinkText:
    'It is not complete, or was changed on the way. Open it again exactly as you got it, or ask the person who gave it to you for a new one.',
  wrongLinkText: 'It permits something else than uploading files here. Ask the person who gave it to you for another one.',

  noLinkHeading: 'This server takes signed file uploads',
  noLinkText:
    'Files are uploaded with a link, a token or a signature for it, as a chat client does whose server handed it an upload slot. There is nothing to browse here, and files are found only by those who know their address.',
  visitorHeading: 'You would like to send a file',
  visitorText: 'Ask the person who runs this server for an upload link, and open it exactly as you get it.',
  holderHeading: 'You were given an upload link',
  holderText: 'It ends in {code} and a long word. Open the whole of it in this browser, or give it to a program:',
  operatorHeading: 'You run this server',
  operatorLink: '{code} prints a link that anybody can open to send you files.',
  operatorForm: '{code} prints one for browsers without JavaScript.',
  operatorSign: '{code} prints a signed address for one file.',
  operatorInit: '{code} prints what to put into Prosody, ejabberd, Caddy or nginx.',

  failure: 'The server refused this file ({code}).',
  failureUnknown: 'This did not work: {detail}',
  failureNumber: 'For the person who runs the server: {request}',
  failure_network: 'The server could not be reached.',
  failure_timeout: 'The server did not answer in time.',
  failure_bad_answer: 'Something answered that is not the server. Are you signed in to this network?',
  failure_file_changed: 'The file was changed meanwhile. Remove it here and add it anew.',
  failure_file_unreadable: 'The file cannot be read any more. It was changed, moved or removed meanwhile.',
  failure_token_expired: 'The link has expired. Ask for a new one.',
  failure_ticket_used_up: 'The link takes no more files. Ask for a new one.',
  failure_bad_token: 'The server does not know this link. Ask for a new one.',
  failure_not_covered: 'The link is not good for this file.',
  failure_too_large: 'The file is larger than the server takes.',
  failure_size_mismatch: 'The file has another size than the link permits.',
  failure_type_mismatch: 'The file is of another type than the link permits.',
  failure_extension_refused: 'The server does not take files with this ending.',
  failure_bad_media_type: 'The server does not take files of this type.',
  failure_storage_full: 'The server has no room for this file. Try again later.',
  failure_storage_failed: 'The disk of the server failed. Try again later.',
  failure_exists: 'There is another file in its place already.',
  failure_chunk_differs: 'The file is not the one that was begun. Remove it here and add it anew.',
  failure_upload_expired: 'Too much time has passed since it was begun. Try again to begin anew.',
  failure_upload_lost: 'The server lost what had arrived. Try again to begin anew.',
  failure_upload_not_found: 'The server does not know of this upload any more. Try again to begin anew.',
  failure_too_many_sessions: 'Too many uploads with this link are unfinished. Try again when others are done.',
  failure_path_segment_too_long: 'The name of the file is too long.',
  failure_path_too_long: 'The name of the file is too long.',
  failure_not_found: 'This server takes no uploads from web pages (chunked uploads are switched off).',

  removeHeading: 'Remove {name}?',
  removeText: '{percent} of it are on the server already, and will be deleted there.',
  removeConfirm: 'Remove',
  keep: 'Keep',
  qrHeading: 'Link to {name}',
  qrAlt: 'QR code of the link to {name}',
  close: 'Close',

  sayAdded: { one: '{count} file added.', other: '{count} files added.' },
  sayRemoved: '{name} removed.',
  sayProgress: '{percent} of all files are there. {left}',
  sayDone: '{name} is done.',
  sayAllDone: { one: 'The file is uploaded.', other: 'All {count} files are uploaded.' },
  sayFailed: '{name} failed: {reason}',
  sayOnline: 'The connection is back. Uploads go on.',
  sayPaused: 'Paused.',
  sayResumed: 'Goes on.',
  sayCopied: { one: 'The link is copied.', other: '{count} links are copied.' },
  sayCopyFailed: 'The browser does not let the page copy. The link is selected; copy it by hand.',
};

/** @type {Readonly<Record<string, TextTable>>} */
export const LANGUAGES = { en: ENGLISH };

/** A space at which no line ends: a number stays with its unit. */
const NO_BREAK = '\u00a0';

const SIZE_UNITS = ['byte', 'kilobyte', 'megabyte', 'gigabyte', 'terabyte'];

/** Texts, numbers and times in one language. */
export class Texts {
  /** @param {readonly string[]} wanted languages as in `navigator.languages`, the best first */
  constructor(wanted) {
    const match = wanted.find((tag) => languageOf(tag) in LANGUAGES) ?? 'en';
    /** BCP 47 tag for Intl: with the reader's region, where the texts are in its language. */
    this.locale = match;
    /** The language of the texts, for `<html lang>`. */
    this.language = languageOf(match);
    /** @type {TextTable} */
    this.table = LANGUAGES[this.language] ?? ENGLISH;
    this.plurals = new Intl.PluralRules(this.locale);
    this.numbers = new Intl.NumberFormat(this.locale);
  }

  /**
   * One text. Numbers among the values are spelled as the language does, `count` chooses the plural.
   * @param {TextKey} key
   * @param {Values} [values]
   * @returns {string}
   */
  say(key, values = {}) {
    const text = this.table[key];
    let pattern;
    if (typeof text === 'string') {
      pattern = text;
    } else {
      pattern = text[this.plurals.select(Number(values['count'] ?? 0))] ?? text.other;
    }
    return pattern.replace(/\{(\w+)\}/g, (whole, name) => {
      const value = values[name];
      if (value === undefined) return whole;
      return typeof value === 'number' ? this.numbers.format(value) : value;
    });
  }

  /**
   * What to say of an error code of the server (docs/errors.md), or undefined where there is no text for it.
   * @param {string} code
   * @returns {string | undefined}
   */
  failure(code) {
    const key = `failure_${code}`;
    return key in this.table ? this.say(/** @type {TextKey} */ (key)) : undefined;
  }

  /**
   * Bytes for people: three digits that count, units of 1024 as in the server's configuration and `link`.
   * @param {number} bytes
   * @param {'' | '-per-second'} [each]
   */
  size(bytes, each = '') {
    let value = bytes;
    let unit = 0;
    while (value >= 1023.5 && unit < SIZE_UNITS.length - 1) {
      value /= 1024;
      unit += 1;
    }
    return new Intl.NumberFormat(this.locale, {
      style: 'unit',
      unit: `${SIZE_UNITS[unit]}${each}`,
      unitDisplay: unit === 0 && !each ? 'long' : 'short',
      maximumFractionDigits: unit === 0 || value >= 100 ? 0 : 1,
    }).format(value).replaceAll(' ', NO_BREAK);
  }

  /**
   * Bytes per second, spelled like sizes.
   * @param {number} bytes
   */
  speed(bytes) {
    return this.size(bytes, '-per-second');
  }

  /**
   * A share, 0 to 1, rounded down: 100 % is said of what is whole only.
   * @param {number} share
   */
  percent(share) {
    const format = new Intl.NumberFormat(this.locale, { style: 'percent', maximumFractionDigits: 0 });
    return format.format(Math.floor(share * 100 + 1e-9) / 100);
  }

  /**
   * How long something takes, as exactly as it can be known.
   * @param {number} seconds
   */
  duration(seconds) {
    let value = Math.max(1, Math.ceil(seconds));
    let unit = 'second';
    if (value > 10 && value < 60) value = Math.ceil(value / 5) * 5;
    if (value >= 60) {
      value = Math.ceil(value / 60);
      unit = 'minute';
    }
    if (unit === 'minute' && value >= 120) {
      value = Math.round(value / 60);
      unit = 'hour';
    }
    return new Intl.NumberFormat(this.locale, { style: 'unit', unit, unitDisplay: 'long' }).format(value).replaceAll(' ', NO_BREAK);
  }

  /**
   * A moment in the reader's time zone.
   * @param {number} epoch seconds
   */
  moment(epoch) {
    return new Intl.DateTimeFormat(this.locale, { dateStyle: 'long', timeStyle: 'short' }).format(epoch * 1000);
  }
}

/** @param {string} tag */
function languageOf(tag) {
  return tag.toLowerCase().split('-')[0] ?? '';
}
