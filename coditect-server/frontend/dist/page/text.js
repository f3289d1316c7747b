const MOST_BYTES = 2 * 1024 * 1024;
export function decode(bytes) {
    if (bytes.byteLength > MOST_BYTES)
        return { is: 'bytes', why: 'This file is too large to edit here.' };
    let text;
    try {
        text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    }
    catch {
        return { is: 'bytes', why: 'This file is not text.' };
    }
    if (text.includes('\0'))
        return { is: 'bytes', why: 'This file is not text.' };
    if (!text.includes('\r'))
        return { is: 'text', text, line_end: '\n' };
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
export function encode(text, line_end) {
    return line_end === '\n' ? text : text.replaceAll('\n', '\r\n');
}
export function position(text, offset) {
    let [line, start] = [0, 0];
    for (let end = text.indexOf('\n'); end >= 0 && end < offset; end = text.indexOf('\n', start)) {
        line += 1;
        start = end + 1;
    }
    return { line, column: offset - start };
}
export function offset(text, { line, column }) {
    let start = 0;
    for (let at = 0; at < line; at += 1) {
        const end = text.indexOf('\n', start);
        if (end < 0)
            return text.length;
        start = end + 1;
    }
    const end = text.indexOf('\n', start);
    return Math.min(start + column, end < 0 ? text.length : end);
}
