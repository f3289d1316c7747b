import { ConflictError } from '../client/index.js';
import { decode, encode } from './text.js';
const DRAFT_AFTER_MS = 800;
const KEEPALIVE_CHARS = 15_000;
export class OpenFile {
    path;
    content = null;
    etag = null;
    saved = '';
    text = '';
    aside = null;
    is_overtaken = false;
    #desk;
    #timer;
    #drafts = Promise.resolve();
    #saves = Promise.resolve();
    #has_draft = false;
    constructor(desk, path) {
        this.#desk = desk;
        this.path = path;
    }
    get is_dirty() {
        return this.content?.is === 'text' && this.text !== this.saved;
    }
    async load() {
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
    async look() {
        const { client, id } = this.#desk;
        const file = await client.files.read(id, this.path);
        if (file.etag === this.etag)
            return false;
        if (this.is_dirty) {
            const content = decode(file.value);
            const is_mine = content.is === 'text' && content.text === this.text;
            if (is_mine)
                this.#take(content, file.etag);
            else
                this.is_overtaken = true;
        }
        else {
            this.#take(decode(file.value), file.etag);
        }
        return true;
    }
    type(text) {
        this.text = text;
        clearTimeout(this.#timer);
        this.#timer = setTimeout(() => void this.keepDraft(), DRAFT_AFTER_MS);
    }
    keepDraft(is_leaving = false) {
        clearTimeout(this.#timer);
        const { client, id } = this.#desk;
        const { path, text, etag } = this;
        if (!this.is_dirty)
            return this.#has_draft && this.aside === null ? this.#dropDraft() : Promise.resolve();
        if (is_leaving && text.length > KEEPALIVE_CHARS)
            is_leaving = false;
        this.#has_draft = true;
        const draft = { content: text, base_etag: etag === null ? null : etag.replaceAll('"', '') };
        return this.#inTurn(() => client.drafts.save(id, path, draft, is_leaving));
    }
    save() {
        const saved = this.#saves.catch(() => undefined).then(() => this.#save());
        this.#saves = saved;
        return saved;
    }
    async #save() {
        if (this.content?.is !== 'text')
            return;
        const { text } = this;
        const bytes = encode(text, this.content.line_end);
        const { client, id } = this.#desk;
        const expecting = this.etag === null ? 'absent' : { etag: this.etag };
        try {
            const { etag } = await client.files.write(id, this.path, bytes, expecting);
            this.#wrote(text, etag);
        }
        catch (error) {
            if (!(error instanceof ConflictError) || error.current === null)
                throw error;
            const there = decode(error.current.value);
            if (there.is !== 'text' || encode(there.text, there.line_end) !== bytes)
                throw error;
            this.#wrote(text, error.current.etag);
        }
        if (this.is_dirty || this.aside !== null)
            return;
        clearTimeout(this.#timer);
        if (this.#has_draft)
            await this.#dropDraft();
    }
    expect(etag) {
        this.etag = etag;
        this.is_overtaken = false;
    }
    async yield(bytes, etag) {
        await this.keepDraft();
        this.aside = { text: this.text, saved_at: new Date().toISOString(), etag: this.etag };
        this.#take(decode(bytes), etag);
    }
    resume() {
        if (this.aside === null)
            return;
        this.text = this.aside.text;
        this.etag = this.aside.etag;
        this.aside = null;
        void this.keepDraft();
    }
    async dismiss() {
        this.aside = null;
        if (!this.is_dirty)
            await this.#dropDraft();
    }
    async rename(path) {
        const had_draft = this.#has_draft;
        if (had_draft)
            await this.#dropDraft();
        this.path = path;
        await this.keepDraft();
    }
    async discard() {
        clearTimeout(this.#timer);
        this.text = this.saved;
        if (this.#has_draft)
            await this.#dropDraft();
    }
    #wrote(text, etag) {
        this.saved = text;
        this.expect(etag);
    }
    #take(content, etag) {
        this.content = content;
        this.saved = content.is === 'bytes' ? '' : content.text;
        this.text = this.saved;
        if (this.aside?.text === this.saved)
            this.aside = null;
        this.expect(etag);
    }
    #offer(draft) {
        this.#has_draft = draft !== null;
        if (draft === null || this.content?.is !== 'text')
            return;
        if (draft.content === this.saved) {
            void this.#dropDraft();
            return;
        }
        const etag = draft.base_etag === null ? null : `"${draft.base_etag}"`;
        this.aside = { text: draft.content, saved_at: draft.saved_at, etag };
    }
    #dropDraft() {
        clearTimeout(this.#timer);
        this.#has_draft = false;
        const { path } = this;
        return this.#inTurn(() => this.#desk.client.drafts.delete(this.#desk.id, path));
    }
    async #inTurn(work) {
        const done = this.#drafts.then(work).catch(() => undefined);
        this.#drafts = done;
        await done;
    }
}
