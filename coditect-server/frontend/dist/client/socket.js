import { backoff } from './environment.js';
import { ApiError, SignedOutError } from './error.js';
import { path } from './http.js';
import { Outbox } from './outbox.js';
import { apply, difference } from './patch.js';
const PROTOCOL = 'coditect.v1';
const PARTS = ['editor', 'terminal', 'memory'];
const PING_INTERVAL_MS = 20_000;
const RESPONSE_TIMEOUT_MS = 10_000;
const CLOSE_AFTER_ERROR_MS = 500;
const MIN_TOKEN_LIFE_MS = 180_000;
export class SessionSocket {
    #client;
    #session;
    #handlers;
    #key;
    #unlisten;
    #base = {
        editor: { value: { tabs: [], active_tab: null, layout: null }, version: 0 },
        terminal: { value: { active: null, terminals: {} }, version: 0 },
        memory: { value: {}, version: 0 },
    };
    #id;
    #numbered_by;
    #outbox;
    #state = { is: 'waiting', delay_ms: 0 };
    #socket = null;
    #attempts = 0;
    #round = 0;
    #retry;
    #pinging;
    #silence;
    constructor(client, session, handlers = {}) {
        this.#client = client;
        this.#session = session;
        this.#handlers = handlers;
        this.#key = `coditect.socket.${session}`;
        const kept = this.#kept();
        this.#id = kept?.client ?? client.env.id();
        this.#numbered_by = kept?.numbered_by ?? this.#id;
        this.#outbox = new Outbox(kept?.updates);
        this.#unlisten = [
            client.env.onWake(() => this.#wake()),
            client.env.onLeave(() => this.#flush(true)),
            client.login.onChange((change) => {
                if (change === 'out')
                    this.#end('signed-out');
            }),
        ];
        this.#keep();
        void this.#connect();
    }
    get state() {
        return this.#state;
    }
    get unacknowledged() {
        return this.#outbox.size;
    }
    view(part) {
        const value = this.#outbox.pending(part).reduce(apply, this.#base[part].value);
        return value;
    }
    update(part, patch) {
        this.#outbox.add(part, patch);
        this.#flush();
    }
    change(part, change) {
        const before = this.view(part);
        const patch = difference(before, change(before));
        if (patch !== undefined)
            this.update(part, patch);
    }
    close() {
        this.#flush(true);
        this.#end('closed');
    }
    async #connect() {
        const round = ++this.#round;
        clearTimeout(this.#retry);
        this.#become({ is: 'connecting' });
        let ticket;
        try {
            ticket = (await this.#client.auth.ticket()).ticket;
        }
        catch (error) {
            if (round !== this.#round)
                return;
            if (error instanceof SignedOutError)
                this.#end('signed-out');
            else
                this.#wait(error instanceof ApiError ? error.retry_after : null);
            return;
        }
        if (round !== this.#round)
            return;
        const { origin, WebSocket } = this.#client.env;
        const session = path `/sessions/${this.#session}/ws`;
        const url = `${origin.replace(/^http/, 'ws')}/api/v5${session}?client=${this.#id}`;
        const socket = new WebSocket(url, [PROTOCOL, `ticket.${ticket}`]);
        let is_restored = false;
        this.#socket = socket;
        this.#expect(socket);
        socket.addEventListener('message', (event) => {
            if (socket !== this.#socket)
                return;
            clearTimeout(this.#silence);
            const frame = JSON.parse(String(event.data));
            if (frame.type === 'restore')
                is_restored = true;
            this.#onMessage(frame);
        });
        socket.addEventListener('close', (event) => {
            if (socket === this.#socket)
                void this.#lost(event.code, is_restored);
        });
        socket.addEventListener('error', () => {
            setTimeout(() => {
                if (socket === this.#socket)
                    void this.#lost(1006, is_restored);
            }, CLOSE_AFTER_ERROR_MS);
        });
    }
    #onMessage(frame) {
        switch (frame.type) {
            case 'restore':
                this.#restore(frame);
                break;
            case 'ack': {
                const update = this.#outbox.settle(frame.seq);
                const base = this.#base[frame.part];
                if (update !== undefined && frame.version >= base.version) {
                    base.value = apply(base.value, update.patch);
                    base.version = frame.version;
                }
                this.#flush();
                break;
            }
            case 'changed': {
                const base = this.#base[frame.part];
                if (frame.version < base.version)
                    break;
                base.value = frame.data;
                base.version = frame.version;
                this.#handlers.part?.(frame.part, 'others');
                break;
            }
            case 'error': {
                const update = typeof frame.seq === 'number' ? this.#outbox.settle(frame.seq) : undefined;
                this.#handlers.refused?.(new ApiError(422, frame.error));
                if (update !== undefined)
                    this.#handlers.part?.(update.part, 'refused');
                this.#flush();
                break;
            }
            case 'expiring':
                void this.#authenticate();
                break;
            case 'authenticated':
            case 'pong':
                break;
        }
    }
    #restore(frame) {
        this.#id = frame.client;
        this.#outbox.restore(frame.seq, this.#numbered_by === this.#id);
        this.#numbered_by = this.#id;
        this.#attempts = 0;
        const { data, versions } = frame;
        const values = {
            editor: data.editor_state,
            terminal: data.terminal_state,
            memory: data.session_memory,
        };
        for (const part of PARTS) {
            this.#base[part] = { value: values[part], version: versions[part] };
        }
        this.#become({ is: 'open' });
        this.#handlers.restored?.(data);
        for (const part of PARTS)
            this.#handlers.part?.(part, 'restored');
        this.#flush();
        this.#pingLater();
    }
    async #lost(code, was_restored) {
        const round = ++this.#round;
        this.#drop();
        if (code === 4404)
            return this.#end('deleted');
        if (code === 4409 || code === 1008) {
            this.#id = this.#client.env.id();
            this.#keep();
            if (was_restored && code === 4409)
                return this.#connect();
        }
        try {
            if (code === 4401)
                await this.#client.login.refresh(await this.#client.login.token());
            else if (!was_restored)
                await this.#client.sessions.get(this.#session);
        }
        catch (error) {
            if (round !== this.#round)
                return;
            if (error instanceof SignedOutError)
                return this.#end('signed-out');
            if (error instanceof ApiError && error.status === 404)
                return this.#end('deleted');
        }
        if (round === this.#round)
            this.#wait();
    }
    async #authenticate() {
        const socket = this.#socket;
        try {
            const token = await this.#client.login.token(MIN_TOKEN_LIFE_MS);
            if (socket === this.#socket)
                this.#send({ type: 'authenticate', token });
        }
        catch {
        }
    }
    #flush(all = false) {
        if (this.#state.is === 'open') {
            for (const { part, patch, seq } of this.#outbox.take(all)) {
                this.#send({ type: `${part}.update`, seq, data: patch });
            }
        }
        this.#keep();
        this.#handlers.unacknowledged?.(this.#outbox.size);
    }
    #send(frame) {
        if (this.#socket?.readyState === 1)
            this.#socket.send(JSON.stringify(frame));
    }
    #wake() {
        if (this.#state.is === 'waiting') {
            this.#attempts = 0;
            void this.#connect();
        }
        else if (this.#state.is === 'open') {
            this.#ping();
        }
    }
    #pingLater() {
        clearTimeout(this.#pinging);
        this.#pinging = setTimeout(() => this.#ping(), PING_INTERVAL_MS);
    }
    #ping() {
        if (this.#socket === null)
            return;
        this.#send({ type: 'ping' });
        this.#expect(this.#socket);
        this.#pingLater();
    }
    #expect(socket) {
        clearTimeout(this.#silence);
        this.#silence = setTimeout(() => {
            if (socket === this.#socket)
                void this.#lost(1006, this.#state.is === 'open');
        }, RESPONSE_TIMEOUT_MS);
    }
    #wait(asked_s = null) {
        const delay_ms = Math.max((asked_s ?? 0) * 1_000, backoff(this.#attempts, this.#client.env.random));
        this.#attempts += 1;
        this.#become({ is: 'waiting', delay_ms });
        this.#retry = setTimeout(() => void this.#connect(), delay_ms);
    }
    #end(why) {
        if (this.#state.is === 'ended')
            return;
        this.#round += 1;
        this.#drop();
        clearTimeout(this.#retry);
        for (const unlisten of this.#unlisten)
            unlisten();
        if (why !== 'closed')
            this.#client.env.own.removeItem(this.#key);
        this.#become({ is: 'ended', why });
    }
    #drop() {
        const socket = this.#socket;
        this.#socket = null;
        clearTimeout(this.#pinging);
        clearTimeout(this.#silence);
        socket?.close(1000);
    }
    #become(state) {
        this.#state = state;
        this.#handlers.state?.(state);
    }
    #kept() {
        try {
            return JSON.parse(this.#client.env.own.getItem(this.#key) ?? 'null');
        }
        catch {
            return null;
        }
    }
    #keep() {
        if (this.#state.is === 'ended')
            return;
        const kept = {
            client: this.#id,
            numbered_by: this.#numbered_by,
            updates: this.#outbox.updates(),
        };
        this.#client.env.own.setItem(this.#key, JSON.stringify(kept));
    }
}
