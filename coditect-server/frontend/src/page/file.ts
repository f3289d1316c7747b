/**
 * One open file: its text, the content last read from the server, and the draft of unsaved changes.
 *
 * A save names the version that it is based on; if that is not the present one, nothing is written,
 * and the caller gets both. Changes are soon stored as a draft, until they are saved.
 */

import { ConflictError, type Draft } from '../client/index.js';
import type { Desk } from './desk.js';
import { decode, encode, type Content } from './text.js';

/** Pause in typing after which a draft is saved. */
const DRAFT_AFTER_MS = 800;
/** Maximum size of a request that a browser still sends for a closing page. */
const KEEPALIVE_CHARS = 15_000;

/** Text of the user that is kept apart from the editor. */
export interface Aside {
  text: string;
  saved_at: string;
  /** Entity tag of the version that it is based on. */
  etag: string | null;
}

export class OpenFile {
  path: string;
  /** `null` until it is read. */
  content: Content | null = null;
  /** Entity tag of `saved`; `null` if there is no file. */
  etag: string | null = null;
  /** Text on the server. */
  saved = '';
  /** Text in the editor. */
  text = '';
  /** Text to offer to the user. */
  aside: Aside | null = null;
  /** Another client has saved a content while this one has unsaved changes. */
  is_overtaken = false;
  readonly #desk: Desk;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Drafts are saved one after the other, so that a late one never follows its own deletion. */
  #drafts: Promise<unknown> = Promise.resolve();
  /** Saves as well: each is based on the result of the previous one. */
  #saves: Promise<unknown> = Promise.resolve();
  #has_draft = false;

  constructor(desk: Desk, path: string) {
    this.#desk = desk;
    this.path = path;
  }

  get is_dirty(): boolean {
    return this.content?.is === 'text' && this.text !== this.saved;
  }

  /** Reads the file and its draft, if there is one. @throws {ApiError} the file does not exist. */
  async load(): Promise<void> {
    const { client, id } = this.#desk;
    const [file, drafts] = await Promise.all([
      client.files.read(id, this.path),
      client.drafts.list(id),
    ]);
    const is_there = drafts.some(({ path }) => path === this.path);
    const draft = is_there ? await client.drafts.get(id, this.path) : null;
    this.#take(decode(file.value), file.etag);
    this.#offer(draft);
  }

  /**
   * Checks for a new content on the server, and returns whether there is one. Unsaved text is kept.
   */
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

  /** Records input. */
  type(text: string): void {
    this.text = text;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.keepDraft(), DRAFT_AFTER_MS);
  }

  /** Saves the text as a draft, or deletes the draft if there is nothing to save. */
  keepDraft(is_leaving = false): Promise<void> {
    clearTimeout(this.#timer);
    const { client, id } = this.#desk;
    const { path, text, etag } = this;
    if (!this.is_dirty)
      return this.#has_draft && this.aside === null ? this.#dropDraft() : Promise.resolve();
    if (is_leaving && text.length > KEEPALIVE_CHARS) is_leaving = false;
    this.#has_draft = true;
    const draft = { content: text, base_etag: etag === null ? null : etag.replaceAll('"', '') };
    return this.#inTurn(() => client.drafts.save(id, path, draft, is_leaving));
  }

  /** Saves the text. @throws {ConflictError} another content is there; nothing was written. */
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
      // Written before, by this page or another, and the response was lost.
      this.#wrote(text, error.current.etag);
    }
    // Input since then has its own draft.
    if (this.is_dirty || this.aside !== null) return;
    clearTimeout(this.#timer);
    if (this.#has_draft) await this.#dropDraft();
  }

  /** Continues from `etag`: the next save overwrites that version. */
  expect(etag: string | null): void {
    this.etag = etag;
    this.is_overtaken = false;
  }

  /** Takes the content of another client. The text is kept aside and offered. */
  async yield(bytes: ArrayBuffer, etag: string): Promise<void> {
    await this.keepDraft();
    this.aside = { text: this.text, saved_at: new Date().toISOString(), etag: this.etag };
    this.#take(decode(bytes), etag);
  }

  /** Restores the text that was kept aside, based on its original version. */
  resume(): void {
    if (this.aside === null) return;
    this.text = this.aside.text;
    this.etag = this.aside.etag;
    this.aside = null;
    void this.keepDraft();
  }

  /** Drops the text that was kept aside. */
  async dismiss(): Promise<void> {
    this.aside = null;
    if (!this.is_dirty) await this.#dropDraft();
  }

  /** Renames the file and its draft. */
  async rename(path: string): Promise<void> {
    const had_draft = this.#has_draft;
    if (had_draft) await this.#dropDraft();
    this.path = path;
    await this.keepDraft();
  }

  /** Drops the file and unsaved text. */
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
    // The text kept aside has been saved.
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
    return this.#inTurn(() => this.#desk.client.drafts.delete(this.#desk.id, path));
  }

  async #inTurn(work: () => Promise<unknown>): Promise<void> {
    // A draft that could not be saved is saved with the next input.
    const done = this.#drafts.then(work).catch(() => undefined);
    this.#drafts = done;
    await done;
  }
}
