/**
 * The editor: the tabs of the session, each with a plain textarea. Tabs, cursors and selections
 * belong to the session and are the same in every page that has it open; the text belongs to the
 * page until it is saved.
 */

import { ApiError, ConflictError, type Cause, type EditorTab } from '../client/index.js';
import { explain } from './account.js';
import { base, isWithin, viewOf, type Desk } from './desk.js';
import { confirm, resolve } from './dialogs.js';
import { button, h, notice, Tabs, time } from './dom.js';
import { OpenFile } from './file.js';
import { decode, offset, position } from './text.js';

const PANEL = 'editor-panel';
/** Pause after which a moved cursor is sent. */
const REST_MS = 120;

interface Pane {
  file: OpenFile;
  area: HTMLTextAreaElement;
  /** Entity tag of the tab when it was last checked. */
  seen: string | null;
  /** Whether the cursor was set to its position in the session. */
  is_placed: boolean;
  fault: string | null;
}

export class EditorPanel {
  readonly element: HTMLElement;
  readonly #desk: Desk;
  readonly #chosen: (path: string | null) => void;
  readonly #tabs = new Tabs(
    'Open files',
    PANEL,
    (path) => this.open(path),
    (path) => void this.close(path),
  );
  readonly #save = button('Save', () => this.save(), {
    'aria-keyshortcuts': 'Control+S Meta+S',
    title: 'Ctrl+S or ⌘S',
  });
  readonly #shut = button('Close', () => this.#active && void this.close(this.#active), {
    'aria-label': 'Close this file',
  });
  readonly #bar = h('div', { class: 'notes' });
  readonly #body = h('div', { class: 'body' });
  readonly #place = h('span', { class: 'place' });
  readonly #condition = h('span', { role: 'status' });
  readonly #panel: HTMLElement;
  readonly #panes = new Map<string, Pane>();
  #active: string | null = null;
  #barred = '';
  #resting: ReturnType<typeof setTimeout> | undefined;
  /** Pane with a moved cursor that was not sent yet. */
  #moved: Pane | null = null;

  constructor(desk: Desk, chosen: (path: string | null) => void) {
    this.#desk = desk;
    this.#chosen = chosen;
    this.#panel = h(
      'div',
      { role: 'tabpanel', id: PANEL, class: 'panel' },
      this.#bar,
      this.#body,
      h('div', { class: 'foot' }, this.#place, this.#condition),
    );
    this.element = h(
      'section',
      { class: 'editor', 'aria-labelledby': 'editor-heading' },
      h(
        'div',
        { class: 'bar' },
        h('h2', { id: 'editor-heading', class: 'unseen' }, 'Editor'),
        this.#tabs.element,
        this.#save,
        this.#shut,
      ),
      this.#panel,
    );
    this.draw();
  }

  /** The session was restored, or its tabs have changed. */
  follow(cause: Cause | 'here'): void {
    const { tabs } = this.#desk.editor;
    for (const tab of tabs) this.#follow(tab, cause);
    for (const [path, pane] of this.#panes) {
      if (tabs.some((tab) => tab.path === path)) continue;
      void pane.file.keepDraft(true);
      pane.area.remove();
      this.#panes.delete(path);
    }
    this.draw();
  }

  /** Checks whether the active file has been changed without an announcement. */
  async look(): Promise<void> {
    const pane = this.#pane();
    if (pane?.file.content) await this.#look(pane);
  }

  /** Saves unsaved text as drafts, since the page may be closed soon. */
  async leave(): Promise<void> {
    this.#sendCursor();
    const dirty = [...this.#panes.values()].filter(({ file }) => file.is_dirty);
    await Promise.all(dirty.map(({ file }) => file.keepDraft(true)));
  }

  open(path: string): void {
    this.#sendCursor();
    this.#desk.change((state) => {
      const at = state.tabs.findIndex((tab) => tab.path === path);
      if (at >= 0) return { ...state, active_tab: at };
      const cursor = { line: 0, column: 0 };
      const tab: EditorTab = { path, cursor, selections: [], pinned: false, view_state: null };
      return { ...state, tabs: [...state.tabs, tab], active_tab: state.tabs.length };
    });
    this.follow('here');
  }

  /** Closes a tab; asks if it has unsaved text. */
  async close(path: string): Promise<void> {
    const file = this.#panes.get(path)?.file;
    if (file?.is_dirty) {
      const kept = 'They are kept as a draft and offered when you open the file again.';
      const text = `${base(path)} has unsaved changes. ${kept}`;
      if (!(await confirm({ title: 'Close without saving?', text, action: 'Close' }))) return;
      await file.keepDraft();
    }
    this.forget(path);
  }

  /** Closes the tabs below `root` without asking. */
  forget(root: string): void {
    this.#desk.change((state) => {
      const front = state.tabs[state.active_tab ?? -1];
      const tabs = state.tabs.filter((tab) => !isWithin(tab.path, root));
      const at = front ? tabs.indexOf(front) : -1;
      const next = Math.min(state.active_tab ?? 0, tabs.length - 1);
      return { ...state, tabs, active_tab: tabs.length === 0 ? null : at >= 0 ? at : next };
    });
    this.follow('here');
  }

  /** Handles the deletion of `root`. */
  removed(root: string): void {
    for (const [path, { file }] of this.#panes) if (isWithin(path, root)) void file.discard();
    this.forget(root);
  }

  /** Handles a move of `from` to `to`. */
  moved(from: string, to: string): void {
    const renamed = (path: string) => (isWithin(path, from) ? to + path.slice(from.length) : path);
    for (const [path, pane] of [...this.#panes]) {
      if (!isWithin(path, from)) continue;
      this.#panes.delete(path);
      this.#panes.set(renamed(path), pane);
      pane.area.setAttribute('aria-label', renamed(path));
      void pane.file.rename(renamed(path));
    }
    this.#desk.change((state) => ({
      ...state,
      tabs: state.tabs.map((tab) => ({ ...tab, path: renamed(tab.path) })),
    }));
    this.follow('here');
  }

  /** Returns the number of files below `root` with unsaved text. */
  unsaved(root: string): number {
    return [...this.#panes].filter(([path, { file }]) => isWithin(path, root) && file.is_dirty)
      .length;
  }

  async save(): Promise<void> {
    const pane = this.#pane();
    if (pane?.file.content?.is !== 'text') return;
    try {
      await pane.file.save();
      this.#saved(pane);
    } catch (error) {
      if (error instanceof ConflictError)
        await this.#resolve(pane, error as ConflictError<ArrayBuffer>);
      else notice(explain(error), 'bad');
    }
    this.draw();
  }

  draw(): void {
    const { tabs, active_tab } = this.#desk.editor;
    const path = tabs[active_tab ?? -1]?.path ?? null;
    const labels = tabs.map((tab) => ({
      key: tab.path,
      label: labelOf(tab.path, tabs),
      title: tab.path,
      is_marked: this.#panes.get(tab.path)?.file.is_dirty ?? false,
    }));
    this.#tabs.draw(labels, path);
    const is_other = path !== this.#active;
    this.#active = path;
    const pane = this.#pane();
    this.#panel.classList.toggle('vacant', pane === undefined);
    // The panel is named after its content.
    this.#panel.setAttribute('aria-label', path ?? 'No file is open');
    for (const [at, { area }] of this.#panes)
      area.hidden = at !== path || pane?.file.content?.is === 'bytes';
    this.#save.disabled = !pane?.file.is_dirty;
    this.#shut.disabled = path === null;
    this.#notes(pane);
    this.#foot(pane);
    if (is_other) this.#chosen(path);
    if (pane && !pane.is_placed && pane.file.content) this.#put(pane);
  }

  #pane(): Pane | undefined {
    return this.#active === null ? undefined : this.#panes.get(this.#active);
  }

  #follow(tab: EditorTab, cause: Cause | 'here'): void {
    const pane = this.#panes.get(tab.path);
    if (pane === undefined) {
      void this.#load(tab);
      return;
    }
    const { etag } = viewOf(tab);
    if (etag !== null && etag !== pane.seen) {
      pane.seen = etag;
      if (etag !== pane.file.etag) void this.#look(pane);
    }
    // The cursor is not moved while the user types.
    if (cause === 'others' && !isTyping(pane) && pane.file.content && !pane.file.is_dirty)
      this.#put(pane, tab);
  }

  async #load(tab: EditorTab): Promise<void> {
    const { path } = tab;
    const area = h('textarea', {
      'aria-label': path,
      spellcheck: 'false',
      autocapitalize: 'off',
      autocomplete: 'off',
      wrap: 'off',
      readonly: true,
      hidden: true,
    });
    const file = new OpenFile(this.#desk, path);
    const pane: Pane = { file, area, seen: viewOf(tab).etag, is_placed: false, fault: null };
    this.#panes.set(path, pane);
    this.#body.append(area);
    area.addEventListener('input', () => {
      file.type(area.value);
      this.draw();
    });
    for (const event of ['keyup', 'pointerup', 'select', 'input', 'scroll', 'focus']) {
      area.addEventListener(event, () => this.#onCursor(pane));
    }
    try {
      await file.load();
    } catch (error) {
      pane.fault =
        error instanceof ApiError && error.status === 404
          ? 'This file no longer exists.'
          : explain(error);
    }
    this.#show(pane);
    this.draw();
  }

  async #look(pane: Pane): Promise<void> {
    try {
      if (await pane.file.look()) this.#show(pane);
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) pane.file.is_overtaken = true;
    }
    this.draw();
  }

  /** Shows the text of the file and keeps the cursor. */
  #show({ file, area }: Pane): void {
    // Text kept aside has only one place, the draft, so nothing may be typed before the user has
    // chosen.
    area.readOnly = file.content?.is !== 'text' || file.aside !== null;
    if (area.value === file.text) return;
    const [start, end, top] = [area.selectionStart, area.selectionEnd, area.scrollTop];
    area.value = file.text;
    area.setSelectionRange(start, end);
    area.scrollTop = top;
  }

  /** Sets the cursor to its position in the session. */
  #put(pane: Pane, tab = this.#tab(pane)): void {
    if (tab === undefined || pane.area.hidden) return;
    const { area } = pane;
    const is_first = !pane.is_placed;
    pane.is_placed = true;
    const [selection] = tab.selections;
    const anchor = offset(area.value, selection?.anchor ?? tab.cursor);
    const active = offset(area.value, selection?.active ?? tab.cursor);
    area.setSelectionRange(
      Math.min(anchor, active),
      Math.max(anchor, active),
      active < anchor ? 'backward' : 'forward',
    );
    area.scrollTop = viewOf(tab).top * lineHeight(area);
    const focused = document.activeElement;
    if (is_first && (focused === document.body || focused?.id === 'main'))
      area.focus({ preventScroll: true });
    this.#foot(pane);
  }

  #tab({ file }: Pane): EditorTab | undefined {
    return this.#desk.editor.tabs.find((tab) => tab.path === file.path);
  }

  /** The cursor may have moved: shown at once, sent soon. */
  #onCursor(pane: Pane): void {
    this.#foot(pane);
    // Moves made by the page itself are not sent.
    if (!isTyping(pane)) return;
    this.#moved = pane;
    clearTimeout(this.#resting);
    this.#resting = setTimeout(() => this.#sendCursor(), REST_MS);
  }

  /** Sends the position of the cursor. */
  #sendCursor(): void {
    clearTimeout(this.#resting);
    const pane = this.#moved;
    this.#moved = null;
    if (!pane?.is_placed || !pane.file.content) return;
    const { area } = pane;
    const [start, end] = [
      position(area.value, area.selectionStart),
      position(area.value, area.selectionEnd),
    ];
    const [anchor, active] = area.selectionDirection === 'backward' ? [end, start] : [start, end];
    const selections = area.selectionStart === area.selectionEnd ? [] : [{ anchor, active }];
    const top = Math.max(0, Math.round(area.scrollTop / lineHeight(area)));
    this.#desk.changeTab(pane.file.path, (tab) => ({
      ...tab,
      cursor: active,
      selections,
      view_state: { ...viewOf(tab), top },
    }));
  }

  #saved(pane: Pane): void {
    pane.seen = pane.file.etag;
    const { etag } = pane.file;
    this.#desk.changeTab(pane.file.path, (tab) => ({
      ...tab,
      view_state: { ...viewOf(tab), etag },
    }));
  }

  /** Resolves a conflict with another client. Either choice keeps both texts. */
  async #resolve(pane: Pane, { current }: ConflictError<ArrayBuffer>): Promise<void> {
    const { file } = pane;
    const there = current === null ? null : decode(current.value);
    const shown = there === null ? null : there.is === 'bytes' ? `(${there.why})` : there.text;
    const choice = await resolve(file.path, file.text, shown);
    if (choice === 'mine') {
      file.expect(current?.etag ?? null);
      await this.save();
    } else if (choice === 'theirs' && current !== null) {
      await file.yield(current.value, current.etag);
      this.#show(pane);
      notice('Your version was kept as a draft. You can restore it above the editor.');
    } else if (choice === 'theirs') {
      await file.discard();
      this.forget(file.path);
    }
    pane.area.focus();
  }

  #notes(pane: Pane | undefined): void {
    const { fault, file } = pane ?? { fault: null, file: null };
    const why = fault ?? (file?.content && file.content.is !== 'text' ? file.content.why : null);
    // Only redrawn after a change, so that a focused button keeps the focus.
    const drawing = JSON.stringify([file?.path, why, file?.aside?.saved_at, file?.is_overtaken]);
    if (drawing === this.#barred) return;
    this.#barred = drawing;
    this.#bar.replaceChildren();
    if (!pane || !file) return;
    if (why !== null)
      this.#bar.append(
        h(
          'p',
          { class: 'note' },
          why,
          file.content?.is === 'bytes' && button('Download', () => this.#download(file)),
        ),
      );
    if (file.is_overtaken)
      this.#bar.append(
        h(
          'p',
          { class: 'note' },
          'This file was changed elsewhere while you were typing. ' +
            'Saving lets you compare both versions.',
        ),
      );
    if (file.aside === null) return;
    const resume = () => {
      file.resume();
      this.#show(pane);
      // The stored position of the cursor refers to this text.
      this.#put(pane);
      this.draw();
      pane.area.focus();
    };
    const dismiss = () => {
      void file.dismiss();
      this.#show(pane);
      this.draw();
      pane.area.focus();
    };
    this.#bar.append(
      h(
        'p',
        { class: 'note' },
        h(
          'span',
          {},
          'You have unsaved changes from ',
          time(file.aside.saved_at),
          '. Restore or discard them to continue.',
        ),
        button('Restore', resume),
        button('Discard', dismiss),
      ),
    );
  }

  #foot(pane: Pane | undefined): void {
    if (!pane?.file.content || pane.file.content.is === 'bytes') {
      this.#place.textContent = '';
      this.#condition.textContent =
        pane && !pane.file.content && pane.fault === null ? 'Loading…' : '';
      return;
    }
    const { area, file } = pane;
    const offset = area.selectionDirection === 'backward' ? area.selectionStart : area.selectionEnd;
    const { line, column } = position(area.value, offset);
    const length = area.selectionEnd - area.selectionStart;
    const selected = length === 0 ? '' : `, ${length} selected`;
    this.#place.textContent = `Line ${line + 1}, column ${column + 1}${selected}`;
    const condition = file.is_dirty
      ? 'Not saved'
      : file.content?.is === 'fixed'
        ? 'Read only'
        : 'Saved';
    if (this.#condition.textContent !== condition) this.#condition.textContent = condition;
  }

  async #download(file: OpenFile): Promise<void> {
    try {
      const { value } = await this.#desk.client.files.read(this.#desk.id, file.path);
      const href = URL.createObjectURL(new Blob([value]));
      h('a', { href, download: base(file.path) }).click();
      setTimeout(() => URL.revokeObjectURL(href), 10_000);
    } catch (error) {
      notice(explain(error), 'bad');
    }
  }
}

/** Returns the name of a file, with its directory if there are two of that name. */
function labelOf(path: string, tabs: EditorTab[]): string {
  const name = base(path);
  return tabs.some((tab) => tab.path !== path && base(tab.path) === name) ? path : name;
}

function isTyping({ area }: Pane): boolean {
  return document.hasFocus() && document.activeElement === area;
}

function lineHeight(area: HTMLTextAreaElement): number {
  return Number.parseFloat(getComputedStyle(area).lineHeight) || 20;
}
