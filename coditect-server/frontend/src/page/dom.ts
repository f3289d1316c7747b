/** Element construction by function calls. Text can never be parsed as markup. */

type Child = Node | string | null | false;
type Attributes = Record<
  string,
  string | number | boolean | null | undefined | ((event: never) => void)
>;

/**
 * Creates an element. An attribute that is `false`, `null` or missing is omitted, `true` has no
 * value, and `onclick` and the like are listeners.
 */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function')
      element.addEventListener(name.slice(2), value as EventListener);
    else if (value !== undefined) set(element, name, value);
  }
  element.append(
    ...children.filter((child): child is Node | string => child !== null && child !== false),
  );
  return element;
}

/** Sets or removes an attribute. */
export function set(element: Element, name: string, value: string | number | boolean | null): void {
  if (value === null || value === false) element.removeAttribute(name);
  else element.setAttribute(name, value === true ? '' : String(value));
}

export function button(
  label: string,
  press: () => unknown,
  attributes: Attributes = {},
): HTMLButtonElement {
  return h('button', { type: 'button', onclick: () => void press(), ...attributes }, label);
}

let labels = 0;
/** Returns an id that is unique on the page. */
export function fresh(): string {
  labels += 1;
  return `l${labels}`;
}

/** Creates a field with its label above and its error message below. */
export function field(
  label: string,
  attributes: Attributes,
): { row: HTMLElement; input: HTMLInputElement; fault(text: string): void } {
  const [id, fault_id] = [fresh(), fresh()];
  const input = h('input', { id, 'aria-describedby': fault_id, ...attributes });
  const faulty = h('p', { id: fault_id, class: 'fault' });
  const row = h('div', { class: 'field' }, h('label', { for: id }, label), input, faulty);
  const fault = (text: string) => {
    faulty.textContent = text;
    set(input, 'aria-invalid', text === '' ? null : 'true');
  };
  return { row, input, fault };
}

/** Shows a message, also to screen readers. */
export function notice(text: string, kind: 'plain' | 'bad' = 'plain'): void {
  const notices = document.getElementById('notices');
  const note = h('p', { class: kind === 'bad' ? 'note bad' : 'note' }, h('span', {}, text));
  const close = button('Dismiss', () => note.remove(), { class: 'quiet' });
  note.append(close);
  notices?.replaceChildren(note);
  if (kind === 'plain') setTimeout(() => note.remove(), 6_000);
}

/** Formats a time for its reader. */
export function time(at: string): HTMLTimeElement {
  const date = new Date(at);
  const is_today = date.toDateString() === new Date().toDateString();
  const shown = is_today
    ? date.toLocaleTimeString(undefined, { hour: '2-digit', minute: '2-digit' })
    : date.toLocaleDateString(undefined, { day: 'numeric', month: 'short', year: 'numeric' });
  return h('time', { datetime: at, title: date.toLocaleString() }, shown);
}

export interface TabItem {
  key: string;
  label: string;
  /** Full text of a shortened label. */
  title?: string;
  is_marked?: boolean;
}

/**
 * A row of tabs with the ARIA pattern: one of them can be focused, arrow keys move, Delete closes.
 * The cross is for the mouse.
 */
export class Tabs {
  readonly element: HTMLElement;
  readonly #panel: string;
  readonly #select: (key: string) => void;
  readonly #close: ((key: string) => void) | undefined;
  #drawn = '';

  constructor(
    label: string,
    panel: string,
    select: (key: string) => void,
    close?: (key: string) => void,
  ) {
    this.element = h('div', { role: 'tablist', 'aria-label': label, class: 'tabs' });
    this.#panel = panel;
    this.#select = select;
    this.#close = close;
  }

  draw(items: TabItem[], active: string | null): void {
    // Only redrawn after a change, so that an element survives a click on it.
    const drawing = JSON.stringify([items, active]);
    if (drawing === this.#drawn) return;
    this.#drawn = drawing;
    const had_focus = this.element.contains(document.activeElement);
    this.element.hidden = items.length === 0;
    this.element.replaceChildren(
      ...items.map((item) => this.#tab(item, items, item.key === active)),
    );
    if (had_focus) this.#selected()?.focus();
    this.#selected()?.scrollIntoView({ block: 'nearest', inline: 'nearest' });
  }

  #tab(item: TabItem, items: TabItem[], is_active: boolean): HTMLElement {
    const tab = h(
      'button',
      {
        type: 'button',
        role: 'tab',
        'aria-selected': is_active ? 'true' : 'false',
        'aria-controls': this.#panel,
        'aria-keyshortcuts': this.#close ? 'Delete' : null,
        'aria-label': item.is_marked ? `${item.label}, not saved` : null,
        tabindex: is_active ? 0 : -1,
        title: item.title,
        onclick: () => this.#select(item.key),
        onkeydown: (event: KeyboardEvent) => this.#key(event, item, items),
        onauxclick: (event: MouseEvent) => {
          if (event.button === 1) this.#close?.(item.key);
        },
      },
      h('span', { class: 'name' }, item.label),
    );
    if (this.#close) {
      const cross = h(
        'span',
        { class: item.is_marked ? 'cross marked' : 'cross', 'aria-hidden': 'true' },
        '×',
      );
      cross.addEventListener('click', (event) => {
        event.stopPropagation();
        this.#close?.(item.key);
      });
      tab.append(cross);
    }
    return tab;
  }

  #key(event: KeyboardEvent, item: TabItem, items: TabItem[]): void {
    const at = items.indexOf(item);
    const last = items.length - 1;
    const steps: Record<string, number> = {
      ArrowLeft: at === 0 ? last : at - 1,
      ArrowRight: at === last ? 0 : at + 1,
      Home: 0,
      End: last,
    };
    const target = items[steps[event.key] ?? -1];
    if (event.key === 'Delete' && this.#close) this.#close(item.key);
    else if (target) this.#select(target.key);
    else return;
    event.preventDefault();
    this.#selected()?.focus();
  }

  #selected(): HTMLElement | null {
    return this.element.querySelector('[aria-selected="true"]');
  }
}
