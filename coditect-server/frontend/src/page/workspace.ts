/** An open session: files, editor, terminal and memory over one socket. */

import { SessionSocket, type Client, type Part, type SocketState } from '../client/index.js';
import { Desk } from './desk.js';
import { button, h, notice } from './dom.js';
import { EditorPanel } from './editor.js';
import { FilesPanel } from './files.js';
import { MemoryPanel } from './memory.js';
import { TerminalPanel } from './terminal.js';

/** The surroundings of a session on the page. */
export interface Surroundings {
  title(name: string): void;
  /** Shows the state of the connection. */
  connection(text: string, is_well: boolean): void;
  gone(): void;
}

const VIEWS = ['files', 'editor', 'terminal', 'memory'] as const;
type View = (typeof VIEWS)[number];

export class Workspace {
  readonly element: HTMLElement;
  readonly #socket: SessionSocket;
  readonly #around: Surroundings;
  readonly #editor: EditorPanel;
  readonly #files: FilesPanel;
  readonly #terminal: TerminalPanel;
  readonly #memory = new MemoryPanel();
  readonly #heading = h('h1', { class: 'unseen' }, 'Session');
  readonly #views = new Map<View, HTMLButtonElement>();
  readonly #unlisten: (() => void)[];
  #has_restored = false;

  constructor(client: Client, id: string, around: Surroundings) {
    this.#around = around;
    this.#socket = new SessionSocket(client, id, {
      state: (state) => this.#state(state),
      restored: ({ session }) => {
        around.title(session.name);
        this.#heading.textContent = session.name;
      },
      part: (part, cause) => this.#part(part, cause),
      refused: (error) => notice(error.message, 'bad'),
      unacknowledged: () => this.#connection(),
    });
    const desk = new Desk(client, id, this.#socket);
    this.#editor = new EditorPanel(desk, (path) => this.#files.select(path));
    this.#files = new FilesPanel(desk, {
      open: (path) => {
        this.#editor.open(path);
        this.#show('editor');
      },
      moved: (from, to) => this.#editor.moved(from, to),
      removed: (path) => this.#editor.removed(path),
      unsaved: (path) => this.#editor.unsaved(path),
    });
    this.#terminal = new TerminalPanel(() => this.#socket);
    for (const view of VIEWS) {
      this.#views.set(
        view,
        button(view.charAt(0).toUpperCase() + view.slice(1), () => this.#show(view)),
      );
    }
    this.element = h(
      'div',
      { class: 'workspace' },
      this.#heading,
      h('div', { class: 'views', role: 'group', 'aria-label': 'Panels' }, ...this.#views.values()),
      this.#files.element,
      this.#editor.element,
      this.#terminal.element,
      this.#memory.element,
    );
    this.#show('editor');
    this.#draw();
    const saves = (event: KeyboardEvent) => this.#key(event);
    addEventListener('keydown', saves);
    this.#unlisten = [
      () => removeEventListener('keydown', saves),
      client.env.onLeave(() => void this.#editor.leave()),
      client.env.onWake(() => this.#wake()),
    ];
    this.#connection();
  }

  /** Closes the session. Unsaved text is kept as drafts. */
  async close(): Promise<void> {
    const kept = this.#editor.leave();
    this.#socket.close();
    for (const unlisten of this.#unlisten) unlisten();
    await kept;
  }

  #part(part: Part, cause: 'restored' | 'others' | 'refused'): void {
    if (part === 'editor') {
      this.#editor.follow(cause === 'restored' && this.#has_restored ? 'others' : cause);
      void this.#files.follow();
      // Others may have changed files during the disconnection.
      if (cause === 'restored' && this.#has_restored) this.#wake();
      if (cause === 'restored') this.#has_restored = true;
    } else {
      this.#draw();
    }
  }

  #draw(): void {
    this.#terminal.draw(this.#socket.view('terminal'));
    this.#memory.draw(this.#socket.view('memory'));
  }

  #wake(): void {
    if (!this.#has_restored) return;
    void this.#files.reload();
    void this.#editor.look();
  }

  #state(state: SocketState): void {
    if (state.is === 'ended' && state.why === 'deleted') {
      notice('This session does not exist or was deleted.', 'bad');
      this.#around.gone();
    }
    this.#connection();
  }

  #connection(): void {
    // The constructor of the socket calls back.
    const socket = this.#socket as SessionSocket | undefined;
    if (socket === undefined) return;
    const { state, unacknowledged } = socket;
    const kept =
      unacknowledged === 0
        ? ''
        : ` ${changes(unacknowledged)} waiting to be sent.`;
    if (state.is === 'open') this.#around.connection('Connected', true);
    else if (state.is === 'connecting') this.#around.connection('Connecting…', false);
    else if (state.is === 'waiting')
      this.#around.connection(`Disconnected, reconnecting.${kept}`, false);
  }

  /** Selects the panel shown on a narrow screen. */
  #show(view: View): void {
    for (const [name, press] of this.#views)
      press.setAttribute('aria-pressed', String(name === view));
    this.element.dataset['view'] = view;
  }

  #key(event: KeyboardEvent): void {
    if (!(event.ctrlKey || event.metaKey) || event.altKey || event.key.toLowerCase() !== 's')
      return;
    event.preventDefault();
    if (document.querySelector('dialog[open]') === null) void this.#editor.save();
  }
}

/** Returns the subject of a sentence about `count` changes, with its verb. */
function changes(count: number): string {
  return count === 1 ? '1 change is' : `${count} changes are`;
}
