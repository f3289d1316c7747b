// Texts in the editor: untouched bytes do not change.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { decode, encode, offset, position } from '../dist/page/text.js';

const bytes = (text) => new TextEncoder().encode(text).buffer;

test('editable text round-trips', () => {
  for (const text of ['', 'a', 'a\n', '\n\n', 'a\r\nb\r\n', '\r\n', '\ufeffmarked\n', 'ünï 🦀\n']) {
    const content = decode(bytes(text));
    assert.equal(content.is, 'text', JSON.stringify(text));
    assert.ok(!content.text.includes('\r'));
    assert.equal(encode(content.text, content.line_end), text);
  }
});

test('text that a textarea would change is read-only', () => {
  for (const text of ['a\r\nb\n', 'a\rb', 'a\n\r\n', '\r'])
    assert.equal(decode(bytes(text)).is, 'fixed', JSON.stringify(text));
});

test('binary and large files are not shown', () => {
  assert.equal(decode(new Uint8Array([0xff, 0xfe]).buffer).is, 'bytes');
  assert.equal(decode(bytes('a\0b')).is, 'bytes');
  assert.equal(decode(new ArrayBuffer(3 * 1024 * 1024)).is, 'bytes');
});

test('position round-trips', () => {
  const text = 'one\n\ntwo 🦀\nthree';
  for (let at = 0; at <= text.length; at += 1) assert.equal(offset(text, position(text, at)), at);
  assert.deepEqual(position(text, 5), { line: 2, column: 0 });
});

test('missing position becomes the nearest one', () => {
  assert.equal(offset('one\ntwo', { line: 0, column: 99 }), 3);
  assert.equal(offset('one\ntwo', { line: 99, column: 0 }), 7);
  assert.equal(offset('', { line: 3, column: 3 }), 0);
});
