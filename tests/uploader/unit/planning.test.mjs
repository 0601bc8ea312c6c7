// What uploader.js computes without a network: which bytes are sent next, how long is waited, where things are.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  amount, backoff, chunkLength, joined, pieces, reach, retryAfter, statusUrl,
} from '../../../src/hmac_file_server/web/uploader.js';

/** A generator of numbers that are the same in every run (mulberry32). */
function numbers(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/** Ranges anyhow: empty, overlapping, in no order. */
function someRanges(random, total, count) {
  return Array.from({ length: Math.floor(random() * count) }, () => {
    const start = Math.floor(random() * (total + 1));
    return [start, Math.min(total, start + Math.floor(random() * (total / 3 + 1)))];
  });
}

/** The same as a set of bytes, for comparison. */
function bytes(ranges) {
  const set = new Set();
  for (const [start, stop] of ranges) for (let place = start; place < stop; place += 1) set.add(place);
  return set;
}

describe('joined ranges', () => {
  test('of nothing are nothing', () => assert.deepEqual(joined([]), []));

  test('have the same bytes, in order, with gaps between them', () => {
    for (let seed = 0; seed < 300; seed += 1) {
      const random = numbers(seed);
      const ranges = someRanges(random, 1 + Math.floor(random() * 200), 12);
      const result = joined(ranges);
      assert.deepEqual(bytes(result), bytes(ranges));
      assert.equal(amount(result), bytes(ranges).size);
      for (let index = 1; index < result.length; index += 1) assert.ok(result[index][0] > result[index - 1][1]);
      assert.deepEqual(joined(result), result);
    }
  });

  test('leave what they are made of as it is', () => {
    const ranges = [[0, 2], [2, 4]];
    joined(ranges);
    assert.deepEqual(ranges, [[0, 2], [2, 4]]);
  });
});

test('reach is the first byte that is missing', () => {
  for (let seed = 0; seed < 300; seed += 1) {
    const random = numbers(seed + 1000);
    const total = 1 + Math.floor(random() * 200);
    const ranges = joined(someRanges(random, total, 8));
    const there = bytes(ranges);
    const place = Math.floor(random() * total);
    let expected = place;
    while (there.has(expected)) expected += 1;
    assert.equal(reach(ranges, place), expected);
  }
});

describe('the plan', () => {
  /** What a server of the chunk API holds after these bodies. */
  const after = (received, plan) => joined([...received, ...plan.map(({ begin, stop }) => [begin, stop])]);

  test('brings everything that is missing, ends at the end of chunks, and leaves out what heads of chunks have', () => {
    for (let seed = 0; seed < 2000; seed += 1) {
      const random = numbers(seed + 5000);
      const total = Math.floor(random() * 300);
      const chunkSize = 1 + Math.floor(random() * 60);
      const received = joined(someRanges(random, total, 10));
      const plan = [...pieces(received, chunkSize, total)];
      assert.equal(amount(after(received, plan)), total);
      const seen = new Set();
      for (const { number, start, begin, stop } of plan) {
        assert.equal(start, number * chunkSize);
        assert.equal(stop, Math.min(start + chunkSize, total));
        assert.ok(start <= begin && begin < stop);
        assert.equal(begin, Math.min(stop, reach(received, start)), 'bytes are sent that are there');
        assert.ok(!seen.has(number));
        seen.add(number);
      }
      assert.deepEqual([...seen], [...seen].sort((a, b) => a - b));
    }
  });

  test('sends no byte twice of what bodies that were cut have left, whatever was cut', () => {
    for (let seed = 0; seed < 300; seed += 1) {
      const random = numbers(seed + 9000);
      const total = 1 + Math.floor(random() * 400);
      const chunkSize = 1 + Math.floor(random() * 60);
      let received = [];
      let sent = 0;
      for (let turn = 0; amount(received) < total; turn += 1) {
        assert.ok(turn < 1000, 'it never ends');
        const plan = [...pieces(received, chunkSize, total)].slice(0, 1 + Math.floor(random() * 4));
        // Bodies are cut anywhere, in any order.
        const brought = plan.map(({ begin, stop }) => [begin, begin + Math.ceil(random() * (stop - begin))]);
        sent += brought.reduce((sum, [start, stop]) => sum + stop - start, 0);
        received = joined([...brought.reverse(), ...received]);
      }
      assert.equal(sent, total);
    }
  });

  test('leaves out chunks that are busy, and no others', () => {
    const all = [...pieces([], 10, 95)].map(({ number }) => number);
    assert.deepEqual(all, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    const busy = new Set([0, 3, 9]);
    assert.deepEqual([...pieces([], 10, 95, busy)].map(({ number }) => number), [1, 2, 4, 5, 6, 7, 8]);
  });

  test('of a long file with one hole looks at no chunk that is whole', () => {
    const total = 2 ** 40;
    const hole = 2 ** 39;
    const plan = [...pieces([[0, hole], [hole + 10, total]], 2 ** 20, total)];
    assert.deepEqual(plan, [{ number: 2 ** 19, start: hole, begin: hole, stop: hole + 2 ** 20 }]);
  });

  test('of nothing is nothing', () => assert.deepEqual([...pieces([], 10, 0)], []));
});

describe('the length of chunks', () => {
  const KIB = 1024;
  const MIB = 1024 * KIB;
  const facts = { total: 10_000 * MIB, announced: 5 * MIB, parallel: 4, rate: null, whole: false };

  test('is never more than was announced, nor more chunks than a session may have', () => {
    for (let seed = 0; seed < 2000; seed += 1) {
      const random = numbers(seed);
      const total = Math.floor(random() * 2 ** (10 + Math.floor(random() * 40)));
      const announced = Math.max(Math.ceil(total / 100_000), Math.ceil(random() * 20 * MIB));
      const length = chunkLength({
        total,
        announced,
        parallel: 1 + Math.floor(random() * 8),
        rate: random() < 0.3 ? null : random() * 1e8,
        whole: random() < 0.5,
        ...(random() < 0.5 ? { wanted: Math.ceil(random() * 30 * MIB) } : {}),
      });
      assert.ok(Number.isInteger(length) && length >= 1 && length <= announced, `${length} of ${announced}`);
      assert.ok(Math.ceil(total / length) <= 100_000);
    }
  });

  test('is what was announced for long files on networks that are not known', () => {
    assert.equal(chunkLength(facts), 5 * MIB);
  });

  test('is what the user wants, if the server has nothing against it', () => {
    assert.equal(chunkLength({ ...facts, wanted: 2 * MIB }), 2 * MIB);
    assert.equal(chunkLength({ ...facts, wanted: 20 * MIB }), 5 * MIB);
  });

  test('is short on slow networks and for short files', () => {
    assert.equal(chunkLength({ ...facts, rate: 20 * KIB }), 256 * KIB);
    assert.equal(chunkLength({ ...facts, rate: 250 * KIB }), 1024 * KIB);
    assert.equal(chunkLength({ ...facts, total: 100 * MIB }), MIB);
    assert.equal(chunkLength({ ...facts, total: 100 * MIB, rate: 20 * KIB, whole: true }), 64 * KIB);
  });

  test('needs no agreement where there is one chunk', () => {
    assert.equal(chunkLength({ ...facts, total: 1000 }), 5 * MIB);
  });
});

describe('the wait before another attempt', () => {
  test('is anything up to a bound that doubles', () => {
    assert.equal(backoff(1, 1000, 30_000, () => 1), 1000);
    assert.equal(backoff(3, 1000, 30_000, () => 1), 4000);
    assert.equal(backoff(3, 1000, 30_000, () => 0.25), 1000);
    assert.equal(backoff(3, 1000, 30_000, () => 0), 0);
    assert.equal(backoff(99, 1000, 30_000, () => 1), 30_000);
    assert.equal(backoff(Infinity, 1000, 30_000, () => 1), 30_000);
  });

  test('has full jitter', () => {
    const waits = Array.from({ length: 200 }, () => backoff(4, 100, 10_000));
    assert.ok(waits.every((wait) => wait >= 0 && wait <= 800));
    assert.ok(Math.min(...waits) < 200 && Math.max(...waits) > 600);
  });
});

describe('Retry-After', () => {
  const time = Date.parse('2026-01-02T03:04:05Z');

  test('in seconds', () => {
    assert.equal(retryAfter('0', time), 0);
    assert.equal(retryAfter(' 120 ', time), 120);
  });

  test('as a date', () => {
    assert.equal(retryAfter('Fri, 02 Jan 2026 03:05:05 GMT', time), 60);
    assert.equal(retryAfter('Fri, 02 Jan 2026 03:03:05 GMT', time), 0);
  });

  test('that is none', () => {
    for (const value of [null, '', 'soon', '-1', '1.5', '12345678901', '1e3']) assert.equal(retryAfter(value, time), null);
  });
});

test('the status is beside the endpoint', () => {
  const of = (text) => statusUrl(new URL(text)).href;
  assert.equal(of('https://files.example.org/upload/chunked'), 'https://files.example.org/upload/status');
  assert.equal(of('https://files.example.org/chunked-upload'), 'https://files.example.org/upload-status');
  assert.equal(of('https://example.org/a/b/upload/chunked'), 'https://example.org/a/b/upload/status');
  assert.equal(of('https://example.org/a/chunked-upload'), 'https://example.org/a/upload-status');
  assert.equal(of('http://[::1]:8080/upload/chunked#here'), 'http://[::1]:8080/upload/status');
});
