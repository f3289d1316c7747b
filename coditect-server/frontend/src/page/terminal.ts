/**
 * The terminals of a session: titles, directories, histories. There is no shell: commands entered
 * here are recorded with the session, and never run.
 */

import type { SessionSocket, Terminal, TerminalState } from '../client/index.js';
import { explain } from './account.js';
import { askText } from './dialogs.js';
import { button, field, h, notice, Tabs } from './dom.js';

/** Maximum number of recorded commands, as on the server. */
const MOST = 1_000;
const PANEL = 'terminal-panel';

export class TerminalPanel {
  readonly element: HTMLElement;
  readonly #socket: () => SessionSocket;
  readonly #tabs = new Tabs(
    'Terminals',
    PANEL,
    (name) => this.#activate(name),
    (name) => this.#remove(name),
  );
  readonly #directory = field('Directory', {
    name: 'cwd',
    spellcheck: 'false',
    autocomplete: 'off',
    autocapitalize: 'off',
  });
  readonly #command = field('Command to record', {
    name: 'command',
    spellcheck: 'false',
    autocomplete: 'off',
    autocapitalize: 'off',
  });
  readonly #history = h('ol', { class: 'history', tabindex: 0, 'aria-label': 'Recorded commands' });
  readonly #title = button('Title', () => this.#rename(), {
    'aria-label': 'Change the title of this terminal',
  });
  readonly #panel: HTMLElement;
  readonly #empty = h('p', { class: 'empty' }, 'No terminals yet.');
  #view: TerminalState = { active: null, terminals: {} };
  /** Position in the history; 0 is the present input. */
  #back = 0;

  constructor(socket: () => SessionSocket) {
    this.#socket = socket;
    this.#command.input.addEventListener('keydown', (event) => this.#recall(event));
    this.#panel = h(
      'div',
      { role: 'tabpanel', id: PANEL, 'aria-label': 'Terminal' },
      this.#form(this.#directory, 'Set', () => this.#enter()),
      this.#history,
      this.#form(this.#command, 'Record', () => this.#record()),
    );
    this.element = h(
      'section',
      { class: 'terminal', 'aria-labelledby': 'terminal-heading' },
      h(
        'div',
        { class: 'bar' },
        h('h2', { id: 'terminal-heading' }, 'Terminal'),
        this.#tabs.element,
        this.#title,
        button('New', () => this.#add(), { 'aria-label': 'New terminal' }),
      ),
      h(
        'p',
        { class: 'hint' },
        'Commands are recorded with the session and not run: this panel has no shell.',
      ),
      this.#empty,
      this.#panel,
    );
    this.draw(this.#view);
  }

  draw(view: TerminalState): void {
    this.#view = view;
    const names = Object.keys(view.terminals).sort();
    const items = names.map((key) => ({ key, label: view.terminals[key]?.title || key }));
    this.#tabs.draw(items, this.#name());
    const terminal = this.#terminal();
    this.#panel.hidden = terminal === undefined;
    this.#empty.hidden = terminal !== undefined;
    this.#title.disabled = terminal === undefined;
    if (terminal === undefined) return;
    // Input in progress is kept.
    if (document.activeElement !== this.#directory.input)
      this.#directory.input.value = terminal.cwd;
    const commands = terminal.command_history;
    const was_at_end =
      this.#history.scrollTop + this.#history.clientHeight >= this.#history.scrollHeight - 8;
    this.#history.replaceChildren(
      ...commands.map((command) => h('li', {}, h('code', {}, command))),
    );
    if (commands.length === 0)
      this.#history.append(h('li', { class: 'empty' }, 'No commands recorded.'));
    if (was_at_end) this.#history.scrollTop = this.#history.scrollHeight;
  }

  #form(
    part: { row: HTMLElement; input: HTMLInputElement },
    action: string,
    act: () => void,
  ): HTMLElement {
    const submit = (event: Event) => {
      event.preventDefault();
      act();
    };
    return h('form', { class: 'row', onsubmit: submit }, part.row, h('button', {}, action));
  }

  /** Returns the name of the active terminal. */
  #name(): string | null {
    const { active, terminals } = this.#view;
    if (active !== null && Object.hasOwn(terminals, active)) return active;
    return Object.keys(terminals).sort()[0] ?? null;
  }

  #terminal(): Terminal | undefined {
    const name = this.#name();
    return name === null ? undefined : this.#view.terminals[name];
  }

  #activate(name: string): void {
    this.#back = 0;
    this.#change((state) => ({ ...state, active: name }));
  }

  #add(): void {
    this.#change(({ terminals }) => {
      let count = Object.keys(terminals).length;
      while (Object.hasOwn(terminals, count === 0 ? 'main' : `terminal-${count + 1}`)) count += 1;
      const name = count === 0 ? 'main' : `terminal-${count + 1}`;
      const made: Terminal = { title: name, cwd: '/', command_history: [], environment_vars: {} };
      return { active: name, terminals: { ...terminals, [name]: made } };
    });
    this.#directory.input.focus();
  }

  #remove(name: string): void {
    this.#change(({ active, terminals }) => {
      const left = Object.fromEntries(Object.entries(terminals).filter(([key]) => key !== name));
      return {
        active: active === name ? (Object.keys(left).sort()[0] ?? null) : active,
        terminals: left,
      };
    });
  }

  async #rename(): Promise<void> {
    const name = this.#name();
    if (name === null) return;
    const value = this.#terminal()?.title ?? '';
    const title = await askText({
      title: 'Title of the terminal',
      label: 'Title',
      value,
      action: 'Set',
    });
    if (title !== null) this.#alter(name, (terminal) => ({ ...terminal, title }));
  }

  #enter(): void {
    const [name, cwd] = [this.#name(), this.#directory.input.value.trim()];
    if (name !== null) this.#alter(name, (terminal) => ({ ...terminal, cwd }));
  }

  #record(): void {
    const [name, command] = [this.#name(), this.#command.input.value.trim()];
    if (name === null || command === '') return;
    const is_taken = this.#alter(name, (terminal) => {
      const command_history = [...terminal.command_history, command].slice(-MOST);
      return { ...terminal, command_history };
    });
    if (!is_taken) return;
    this.#back = 0;
    this.#command.input.value = '';
    this.#history.scrollTop = this.#history.scrollHeight;
  }

  /** Recalls earlier commands with the arrow keys. */
  #recall(event: KeyboardEvent): void {
    const step = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const commands = this.#terminal()?.command_history ?? [];
    this.#back = Math.max(0, Math.min(commands.length, this.#back + step));
    this.#command.input.value =
      this.#back === 0 ? '' : (commands[commands.length - this.#back] ?? '');
  }

  #alter(name: string, change: (terminal: Terminal) => Terminal): boolean {
    return this.#change((state) => {
      const terminal = state.terminals[name];
      return terminal
        ? { ...state, terminals: { ...state.terminals, [name]: change(terminal) } }
        : state;
    });
  }

  /** Changes the terminals; returns whether that succeeded. */
  #change(change: (state: TerminalState) => TerminalState): boolean {
    let is_taken = true;
    try {
      this.#socket().change('terminal', change);
    } catch (error) {
      is_taken = false;
      notice(explain(error), 'bad');
    }
    this.draw(this.#socket().view('terminal'));
    return is_taken;
  }
}
