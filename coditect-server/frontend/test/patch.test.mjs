// Properties of merge patches and the outbox, checked with many inputs.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { apply, compose, difference, isSame } from '../dist/client/patch.js';
import { Outbox, OutboxError } from '../dist/client/outbox.js';

/** Reproducible pseudorandom numbers (mulberry32). */
function chance(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function value(random, depth, may_be_null) {
  const roll = random();
  if (depth === 0 || roll < 0.35) {
    const scalars = may_be_null ? [null, 1, 'x', false, null] : [1, 'x', false, 2];
    return scalars[Math.floor(random() * scalars.length)];
  }
  if (roll < 0.5) return [Math.floor(random() * 3)];
  return object(random, depth - 1, may_be_null);
}

function object(random, depth, may_be_null) {
  const names = ['a', 'b', 'constructor'].filter(() => random() < 0.6);
  return Object.fromEntries(names.map((name) => [name, value(random, depth, may_be_null)]));
}

test('examples of RFC 7396 hold', () => {
  for (const [target, patch, result] of [
    [{ a: 'b' }, { a: 'c' }, { a: 'c' }],
    [{ a: 'b' }, { b: 'c' }, { a: 'b', b: 'c' }],
    [{ a: 'b' }, { a: null }, {}],
    [{ a: 'b', b: 'c' }, { a: null }, { b: 'c' }],
    [{ a: ['b'] }, { a: 'c' }, { a: 'c' }],
    [{ a: 'c' }, { a: ['b'] }, { a: ['b'] }],
    [{ a: { b: 'c' } }, { a: { b: 'd', c: null } }, { a: { b: 'd' } }],
    [{ a: [{ b: 'c' }] }, { a: [1] }, { a: [1] }],
    [
      ['a', 'b'],
      ['c', 'd'],
      ['c', 'd'],
    ],
    [{ a: 'b' }, ['c'], ['c']],
    [{ a: 'foo' }, null, null],
    [{ a: 'foo' }, 'bar', 'bar'],
    [{ e: null }, { a: 1 }, { e: null, a: 1 }],
    [[1, 2], { a: 'b', c: null }, { a: 'b' }],
    [{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }],
  ]) {
    assert.deepEqual(apply(target, patch), result);
  }
});

test('member may have any name', () => {
  const patch = JSON.parse('{"__proto__": {"polluted": true}, "constructor": 1}');
  const result = apply({}, patch);
  assert.equal(JSON.stringify(result), JSON.stringify(patch));
  assert.equal({}.polluted, undefined);
});

test('composed patch has the effect of both patches, if it exists', () => {
  const random = chance(7);
  let together = 0;
  for (let round = 0; round < 20_000; round += 1) {
    const [start, first, second] = [
      object(random, 3, false),
      object(random, 3, true),
      object(random, 3, true),
    ];
    const both = compose(first, second);
    if (both === undefined) continue;
    together += 1;
    const shown = JSON.stringify({ start, first, second, both });
    assert.ok(isSame(apply(apply(start, first), second), apply(start, both)), shown);
  }
  assert.ok(together > 5_000, `only ${together} could be put together`);
});

test('replacement of a removed member is not composed', () => {
  assert.equal(compose({ a: null }, { a: { c: 1 } }), undefined);
});

test('difference turns one value into the other', () => {
  const random = chance(11);
  for (let round = 0; round < 20_000; round += 1) {
    const [before, after] = [object(random, 3, false), object(random, 3, false)];
    const patch = difference(before, after);
    if (patch === undefined) assert.ok(isSame(before, after));
    else assert.ok(isSame(apply(before, patch), after), JSON.stringify({ before, after, patch }));
  }
});

test('waiting updates are merged, updates in flight are not', () => {
  const outbox = new Outbox();
  outbox.restore(4, true);
  outbox.add('editor', { active_tab: 0 });
  assert.deepEqual(outbox.take(), [{ part: 'editor', patch: { active_tab: 0 }, seq: 5 }]);
  outbox.add('editor', { active_tab: 1 });
  outbox.add('editor', { active_tab: 2, layout: 'x' });
  outbox.add('terminal', { active: 'main' });
  assert.deepEqual(outbox.take(), [{ part: 'terminal', patch: { active: 'main' }, seq: 6 }]);
  assert.equal(outbox.size, 3);
  outbox.settle(5);
  assert.deepEqual(outbox.take(), [
    { part: 'editor', patch: { active_tab: 2, layout: 'x' }, seq: 7 },
  ]);
});

test('lost updates are sent again unchanged, durable ones are not', () => {
  const outbox = new Outbox();
  outbox.restore(0, true);
  outbox.add('editor', { active_tab: 0 });
  outbox.add('terminal', { active: 'a' });
  outbox.take();
  outbox.add('editor', { active_tab: 1 });
  const reloaded = new Outbox(JSON.parse(JSON.stringify(outbox.updates())));
  for (const survivor of [outbox, reloaded]) {
    survivor.restore(1, true);
    assert.deepEqual(survivor.take(), [
      { part: 'terminal', patch: { active: 'a' }, seq: 2 },
      { part: 'editor', patch: { active_tab: 1 }, seq: 3 },
    ]);
  }
});

test('another client id renumbers all updates', () => {
  const outbox = new Outbox();
  outbox.restore(40, true);
  outbox.add('editor', { active_tab: 0 });
  outbox.take();
  outbox.restore(0, false);
  assert.deepEqual(outbox.take(), [{ part: 'editor', patch: { active_tab: 0 }, seq: 1 }]);
});

test('full outbox refuses updates', () => {
  const outbox = new Outbox();
  assert.throws(() => outbox.add('memory', { text: 'x'.repeat(300_000) }), OutboxError);
  // Each removes a member that the next one replaces by an object, so no two can be merged.
  const next = (at) => ({ [`key ${at}`]: {}, [`key ${at + 1}`]: null });
  for (let at = 0; at < 200; at += 1) outbox.add('memory', next(at));
  assert.throws(() => outbox.add('memory', next(200)), OutboxError);
  assert.equal(outbox.size, 200);
});
