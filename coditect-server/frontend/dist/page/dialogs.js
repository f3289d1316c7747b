import { button, field, fresh, h } from './dom.js';
export function askText(question) {
    return open(question.title, (done) => {
        const { row, input, fault } = field(question.label, {
            value: question.value ?? '',
            autocomplete: 'off',
            spellcheck: 'false',
        });
        const form = h('form', {
            onsubmit: (event) => {
                event.preventDefault();
                const text = input.value.trim();
                const wrong = text === '' ? 'This field is required.' : (question.fault?.(text) ?? '');
                fault(wrong);
                if (wrong === '')
                    done(text);
            },
        }, row, h('div', { class: 'actions' }, h('button', { class: 'main' }, question.action), button('Cancel', () => done(null))));
        queueMicrotask(() => {
            input.focus();
            const end = input.value.lastIndexOf('.');
            input.setSelectionRange(input.value.lastIndexOf('/') + 1, end > 0 ? end : input.value.length);
        });
        return [form];
    });
}
export async function confirm(question) {
    const answer = await open(question.title, (done) => [
        h('p', {}, question.text),
        h('div', { class: 'actions' }, button('Cancel', () => done(null), { autofocus: true }), button(question.action, () => done(true), { class: 'danger' })),
    ]);
    return answer === true;
}
export function resolve(path, mine, theirs) {
    const title = theirs === null ? `${path} was deleted elsewhere` : `${path} was changed elsewhere`;
    return open(title, (done) => [
        h('p', {}, theirs === null
            ? 'Nothing was saved. Keep your version to create the file again, or discard it.'
            : 'Nothing was overwritten. Keep your version, and theirs remains as an older version ' +
                'of the file. Take theirs, and your version is kept as a draft.'),
        h('div', { class: 'versions' }, side('Your version (not saved)', mine), theirs === null ? null : side('Saved version', theirs)),
        h('div', { class: 'actions' }, button('Cancel', () => done(null), { autofocus: true }), button(theirs === null ? 'Discard mine' : 'Take theirs', () => done('theirs')), button('Keep mine', () => done('mine'), { class: 'main' })),
    ], 'wide');
}
function side(label, text) {
    const id = fresh();
    const shown = h('textarea', { id, readonly: true, spellcheck: 'false', rows: 12 });
    shown.value = text;
    return h('div', { class: 'side' }, h('label', { for: id }, label), shown);
}
function open(title, fill, kind = '') {
    return new Promise((resolve) => {
        let answer = null;
        const id = fresh();
        const dialog = h('dialog', { 'aria-labelledby': id, class: kind });
        const done = (given) => {
            answer = given;
            dialog.close();
        };
        dialog.append(h('h2', { id }, title), ...fill(done));
        dialog.addEventListener('close', () => {
            dialog.remove();
            resolve(answer);
        });
        document.body.append(dialog);
        dialog.showModal();
    });
}
