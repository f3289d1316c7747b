export function h(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
        if (typeof value === 'function')
            element.addEventListener(name.slice(2), value);
        else if (value !== undefined)
            set(element, name, value);
    }
    element.append(...children.filter((child) => child !== null && child !== false));
    return element;
}
export function set(element, name, value) {
    if (value === null || value === false)
        element.removeAttribute(name);
    else
        element.setAttribute(name, value === true ? '' : String(value));
}
export function button(label, press, attributes = {}) {
    return h('button', { type: 'button', onclick: () => void press(), ...attributes }, label);
}
let labels = 0;
export function fresh() {
    labels += 1;
    return `l${labels}`;
}
export function field(label, attributes) {
    const [id, fault_id] = [fresh(), fresh()];
    const input = h('input', { id, 'aria-describedby': fault_id, ...attributes });
    const faulty = h('p', { id: fault_id, class: 'fault' });
    const row = h('div', { class: 'field' }, h('label', { for: id }, label), input, faulty);
    const fault = (text) => {
        faulty.textContent = text;
        set(input, 'aria-invalid', text === '' ? null : 'true');
    };
    return { row, input, fault };
}
export function notice(text, kind = 'plain') {
    const notices = document.getElementById('notices');
    const note = h('p', { class: kind === 'bad' ? 'note bad' : 'note' }, h('span', {}, text));
    const close = button('Dismiss', () => note.remove(), { class: 'quiet' });
    note.append(close);
    notices?.replaceChildren(note);
    if (kind === 'plain')
        setTimeout(() => note.remove(), 6_000);
}
export function time(at) {
    const date = new Date(at);
    const is_today = date.toDateString() === new Date().toDateString();
    const shown = is_today
        ? date.toLocaleTimeString(undefined, { hour: '2-digit', minute: '2-digit' })
        : date.toLocaleDateString(undefined, { day: 'numeric', month: 'short', year: 'numeric' });
    return h('time', { datetime: at, title: date.toLocaleString() }, shown);
}
export class Tabs {
    element;
    #panel;
    #select;
    #close;
    #drawn = '';
    constructor(label, panel, select, close) {
        this.element = h('div', { role: 'tablist', 'aria-label': label, class: 'tabs' });
        this.#panel = panel;
        this.#select = select;
        this.#close = close;
    }
    draw(items, active) {
        const drawing = JSON.stringify([items, active]);
        if (drawing === this.#drawn)
            return;
        this.#drawn = drawing;
        const had_focus = this.element.contains(document.activeElement);
        this.element.hidden = items.length === 0;
        this.element.replaceChildren(...items.map((item) => this.#tab(item, items, item.key === active)));
        if (had_focus)
            this.#selected()?.focus();
        this.#selected()?.scrollIntoView({ block: 'nearest', inline: 'nearest' });
    }
    #tab(item, items, is_active) {
        const tab = h('button', {
            type: 'button',
            role: 'tab',
            'aria-selected': is_active ? 'true' : 'false',
            'aria-controls': this.#panel,
            'aria-keyshortcuts': this.#close ? 'Delete' : null,
            'aria-label': item.is_marked ? `${item.label}, not saved` : null,
            tabindex: is_active ? 0 : -1,
            title: item.title,
            onclick: () => this.#select(item.key),
            onkeydown: (event) => this.#key(event, item, items),
            onauxclick: (event) => {
                if (event.button === 1)
                    this.#close?.(item.key);
            },
        }, h('span', { class: 'name' }, item.label));
        if (this.#close) {
            const cross = h('span', { class: item.is_marked ? 'cross marked' : 'cross', 'aria-hidden': 'true' }, '×');
            cross.addEventListener('click', (event) => {
                event.stopPropagation();
                this.#close?.(item.key);
            });
            tab.append(cross);
        }
        return tab;
    }
    #key(event, item, items) {
        const at = items.indexOf(item);
        const last = items.length - 1;
        const steps = {
            ArrowLeft: at === 0 ? last : at - 1,
            ArrowRight: at === last ? 0 : at + 1,
            Home: 0,
            End: last,
        };
        const target = items[steps[event.key] ?? -1];
        if (event.key === 'Delete' && this.#close)
            this.#close(item.key);
        else if (target)
            this.#select(target.key);
        else
            return;
        event.preventDefault();
        this.#selected()?.focus();
    }
    #selected() {
        return this.element.querySelector('[aria-selected="true"]');
    }
}
