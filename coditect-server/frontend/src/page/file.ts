/**
 * One open file: its text, what the server had when it was read, and the draft of what was typed since.
 *
 * A save names what it was typed over; if that is not what is there, nothing is written, and the caller
 * gets both. What is typed is kept as a draft soon after, until it is saved.
 */

import { ConflictError, type Draft } from '../client/index.js';
import type { Desk } from './desk.js';
import { decode, encode, type Content } from './text.js';

/** How long nobody types before a draft is kept. */
const DRAFT_AFTER_MS = 800;
/** The most that a browser sends for a page that goes away. */
const KEEPALIVE_CHARS = 15_000;

/** What somebody typed, kept apart from what the editor shows. */
export interface Aside {
  text: string;
  saved_at: string;
  /** What it was typed over. */
  etag: string | null;
}

export class OpenFile {
  path: string;
  /** `null` until it was read. */
  content: Content | null = null;
  /** The tag of what `saved` is; `null` where there is no file. */
  etag: string | null = null;
  /** The text as the server has it. */
  saved = '';
  /** The text as it is here. */
  text = '';
  /** To be offered. */
  aside: Aside | null = null;
  /** Somebody has saved another content while this one was being typed over. */
  is_overtaken = false;
  readonly #desk: Desk;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Drafts go one after the other: a late one must not come after its own end. */
  #drafts: Promise<unknown> = Promise.resolve();
  /** So do saves: the next one is over what the one before has written. */
  #saves: Promise<unknown> = Promise.resolve();
  #has_draft = false;

  constructor(desk: Desk, path: string) {
    this.#desk = desk;
    this.path = path;
  }

  get is_dirty(): boolean {
    return this.content?.is === 'text' && this.text !== this.saved;
  }

  /** Reads the file, and looks whether there is a draft of it. @throws {ApiError} it is not there. */
  async load(): Promise<void> {
    const { client, id } = this.#desk;
    const [file, drafts] = await Promise.all([client.files.read(id, this.path), client.drafts.list(id)]);
    const is_there = drafts.some(({ path }) => path === this.path);
    const draft = is_there ? await client.drafts.show(id, this.path) : null;
    this.#take(decode(file.value), file.etag);
    this.#offer(draft);
  }

  /** Looks whether the server has another content. What is typed here stays. Whether anything is new. */
  async look(): Promise<boolean> {
    const { client, id } = this.#desk;
    const file = await client.files.read(id, this.path);
    if (file.etag === this.etag) return false;
    if (this.is_dirty) {
      const content = decode(file.value);
      const is_mine = content.is === 'text' && content.text === this.text;
      if (is_mine) this.#take(content, file.etag);
      else this.is_overtaken = true;
    } else {
      this.#take(decode(file.value), file.etag);
    }
    return true;
  }

  /** Somebody typed. */
  type(text: string): void {
    this.text = text;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.keepDraft(), DRAFT_AFTER_MS);
  }

  /** Keeps what is typed as a draft, or lets the draft go if there is nothing to keep. */
  keepDraft(is_leaving = false): Promise<void> {
    clearTimeout(this.#timer);
    const { client, id } = this.#desk;
    const { path, text, etag } = this;
    if (!this.is_dirty) return this.#has_draft && this.aside === null ? this.#dropDraft() : Promise.resolve();
    if (is_leaving && text.length > KEEPALIVE_CHARS) is_leaving = false;
    this.#has_draft = true;
    const draft = { content: text, base_etag: etag === null ? null : etag.replaceAll('"', '') };
    return this.#inTurn(() => client.drafts.save(id, path, draft, is_leaving));
  }

  /**
   * Writes it. @throws {ConflictError} something else is there; nothing was written.
   */
  save(): Promise<void> {
    const saved = this.#saves.catch(() => undefined).then(() => this.#save());
    this.#saves = saved;
    return saved;
  }

  async #save(): Promise<void> {
    if (this.content?.is !== 'text') return;
    const { text } = this;
    const bytes = encode(text, this.content.line_end);
    const { client, id } = this.#desk;
    const expecting = this.etag === null ? 'absent' : { etag: this.etag };
    try {
      const { etag } = await client.files.write(id, this.path, bytes, expecting);
      this.#wrote(text, etag);
    } catch (error) {
      if (!(error instanceof ConflictError) || error.current === null) throw error;
      const there = decode(error.current.value as ArrayBuffer);
      if (there.is !== 'text' || encode(there.text, there.line_end) !== bytes) throw error;
      // It was written before, by this page or another, and the answer was lost.
      this.#wrote(text, error.current.etag);
    }
    // What was typed meanwhile has its own draft.
    if (this.is_dirty || this.aside !== null) return;
    clearTimeout(this.#timer);
    if (this.#has_draft) await this.#dropDraft();
  }

  /** Goes on from `etag`, whatever is there: the next save writes over it. */
  expect(etag: string | null): void {
    this.etag = etag;
    this.is_overtaken = false;
  }

  /** Takes what somebody else has written; what was typed here is put aside, and offered. */
  async yield(bytes: ArrayBuffer, etag: string): Promise<void> {
    await this.keepDraft();
    this.aside = { text: this.text, saved_at: new Date().toISOString(), etag: this.etag };
    this.#take(decode(bytes), etag);
  }

  /** What was put aside is the text again, over what it was typed over. */
  resume(): void {
    if (this.aside === null) return;
    this.text = this.aside.text;
    this.etag = this.aside.etag;
    this.aside = null;
    void this.keepDraft();
  }

  /** What was put aside is not wanted any more. */
  async dismiss(): Promise<void> {
    this.aside = null;
    if (!this.is_dirty) await this.#dropDraft();
  }

  /** It is called otherwise now, and so is its draft. */
  async rename(path: string): Promise<void> {
    const had_draft = this.#has_draft;
    if (had_draft) await this.#dropDraft();
    this.path = path;
    await this.keepDraft();
  }

  /** It is gone, and with it what was typed. */
  async discard(): Promise<void> {
    clearTimeout(this.#timer);
    this.text = this.saved;
    if (this.#has_draft) await this.#dropDraft();
  }

  #wrote(text: string, etag: string): void {
    this.saved = text;
    this.expect(etag);
  }

  #take(content: Content, etag: string): void {
    this.content = content;
    this.saved = content.is === 'bytes' ? '' : content.text;
    this.text = this.saved;
    // Whoever typed it has saved it.
    if (this.aside?.text === this.saved) this.aside = null;
    this.expect(etag);
  }

  #offer(draft: Draft | null): void {
    this.#has_draft = draft !== null;
    if (draft === null || this.content?.is !== 'text') return;
    if (draft.content === this.saved) {
      void this.#dropDraft();
      return;
    }
    const etag = draft.base_etag === null ? null : `"${draft.base_etag}"`;
    this.aside = { text: draft.content, saved_at: draft.saved_at, etag };
  }

  #dropDraft(): Promise<void> {
    clearTimeout(this.#timer);
    this.#has_draft = false;
    const { path } = this;
    return this.#inTurn(() => this.#desk.client.drafts.discard(this.#desk.id, path));
  }

  async #inTurn(work: () => Promise<unknown>): Promise<void> {
    // A draft that could not be kept is kept with the next stroke; the text itself is here.
    const done = this.#drafts.then(work).catch(() => undefined);
    this.#drafts = done;
    await done;
  }
}
