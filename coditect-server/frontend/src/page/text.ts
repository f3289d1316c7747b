/** Texts: bytes as lines that a textarea can hold, and places in them. */

import type { TextPosition } from '../client/index.js';

/** What a file is to the editor. */
export type Content =
  | { is: 'text'; text: string; line_end: '\n' | '\r\n' }
  /** It can be shown, but a textarea would change it. */
  | { is: 'fixed'; text: string; why: string }
  | { is: 'bytes'; why: string };

const MOST_BYTES = 2 * 1024 * 1024;

/** Bytes as text, if {@link encode} would make the same bytes of it. */
export function decode(bytes: ArrayBuffer): Content {
  if (bytes.byteLength > MOST_BYTES) return { is: 'bytes', why: 'This file is too large to be edited here.' };
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return { is: 'bytes', why: 'This file is not text.' };
  }
  if (text.includes('\0')) return { is: 'bytes', why: 'This file is not text.' };
  if (!text.includes('\r')) return { is: 'text', text, line_end: '\n' };
  const lines = text.replaceAll('\r\n', '\n');
  if (lines.includes('\r') || lines.replaceAll('\n', '\r\n') !== text) {
    return {
      is: 'fixed',
      text: lines.replaceAll('\r', '\n'),
      why: 'Its lines end in different ways, which editing here would change. It is shown, not edited.',
    };
  }
  return { is: 'text', text: lines, line_end: '\r\n' };
}

/** The text with the line ends that its file has. */
export function encode(text: string, line_end: '\n' | '\r\n'): string {
  return line_end === '\n' ? text : text.replaceAll('\n', '\r\n');
}

/** Where an offset is; lines and columns count from 0, columns in UTF-16 units as offsets do. */
export function position(text: string, offset: number): TextPosition {
  let [line, start] = [0, 0];
  for (let end = text.indexOf('\n'); end >= 0 && end < offset; end = text.indexOf('\n', start)) {
    line += 1;
    start = end + 1;
  }
  return { line, column: offset - start };
}

/** The offset of a position, or the nearest one that there is. */
export function offset(text: string, { line, column }: TextPosition): number {
  let start = 0;
  for (let at = 0; at < line; at += 1) {
    const end = text.indexOf('\n', start);
    if (end < 0) return text.length;
    start = end + 1;
  }
  const end = text.indexOf('\n', start);
  return Math.min(start + column, end < 0 ? text.length : end);
}
