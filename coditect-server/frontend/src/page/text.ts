/** Conversion between bytes and the text of a textarea, and positions in it. */

import type { TextPosition } from '../client/index.js';

/** The content of a file, as the editor can handle it. */
export type Content =
  | { is: 'text'; text: string; line_end: '\n' | '\r\n' }
  /** Displayable, but a textarea would change it. */
  | { is: 'fixed'; text: string; why: string }
  | { is: 'bytes'; why: string };

const MOST_BYTES = 2 * 1024 * 1024;

/** Decodes bytes as text, if {@link encode} would restore the same bytes. */
export function decode(bytes: ArrayBuffer): Content {
  if (bytes.byteLength > MOST_BYTES)
    return { is: 'bytes', why: 'This file is too large to edit here.' };
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
      why: 'This file has mixed line endings, which editing here would change. It is read-only.',
    };
  }
  return { is: 'text', text: lines, line_end: '\r\n' };
}

/** Restores the line ends of the file. */
export function encode(text: string, line_end: '\n' | '\r\n'): string {
  return line_end === '\n' ? text : text.replaceAll('\n', '\r\n');
}

/** Returns the position of an offset. Lines and columns count from 0, columns in UTF-16 units. */
export function position(text: string, offset: number): TextPosition {
  let [line, start] = [0, 0];
  for (let end = text.indexOf('\n'); end >= 0 && end < offset; end = text.indexOf('\n', start)) {
    line += 1;
    start = end + 1;
  }
  return { line, column: offset - start };
}

/** Returns the offset of a position, or the nearest one. */
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
