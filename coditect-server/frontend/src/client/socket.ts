/**
 * A session's parts, kept in step with the server over a WebSocket that comes back whenever it is lost.
 *
 * A page changes a part here and sees it changed at once; the update goes to the server as soon as it can,
 * is kept until the server has it on disk, and is sent again after a loss of the connection, a restart of
 * the server or a reload of the page, with a number by which the server takes it once. What others change
 * comes in, and what is still on its way stays on top of it.
 *
 * It ends for good when the session is deleted, when the login is over, and when it is closed.
 */

import type { Client } from './client.js';
import { backoff } from './environment.js';
import { ApiError, SignedOutError } from './error.js';
import { path } from './http.js';
import { Outbox, type Update } from './outbox.js';
import { apply, difference } from './patch.js';
import type { ClientFrame, Json, JsonObject, Part, Parts, Restored, ServerFrame } from './types.js';

export type SocketState =
  | { is: 'connecting' }
  | { is: 'open' }
  /** Tries again by itself. */
  | { is: 'waiting'; delay_ms: number }
  | { is: 'ended'; why: 'closed' | 'deleted' | 'signed-out' };

/** Why a part is another one than before. */
export type Cause = 'restored' | 'others' | 'refused';

export interface Handlers {
  state?(state: SocketState): void;
  /** After each connect, and before `part` is called for each part. */
  restored?(restored: Restored): void;
  part?(part: Part, cause: Cause): void;
  /** The server did not take an update; it is undone here. */
  refused?(error: ApiError): void;
  /** How many updates the server does not have yet. */
  unacknowledged?(count: number): void;
}

/** What a tab keeps over a reload. */
interface Kept {
  client: string;
  /** The client id that the numbers are of. */
  numbered_by: string;
  updates: Update[];
}

interface Base {
  value: JsonObject;
  version: number;
}

const PROTOCOL = 'coditect.v1';
const PARTS: readonly Part[] = ['editor', 'terminal', 'memory'];
const PING_EVERY_MS = 20_000;
/** How long an answer to a ping, or to a new connection, may take. */
const PATIENCE_MS = 10_000;
const CLOSE_AFTER_ERROR_MS = 500;
/** How long a token must hold that a connection goes on with. */
const LEAST_LIFE_MS = 180_000;

export class SessionSocket {
  readonly #client: Client;
  readonly #session: string;
  readonly #handlers: Handlers;
  readonly #key: string;
  readonly #unlisten: (() => void)[];
  readonly #base: Record<Part, Base> = {
    editor: { value: { tabs: [], active_tab: null, layout: null }, version: 0 },
    terminal: { value: { active: null, terminals: {} }, version: 0 },
    memory: { value: {}, version: 0 },
  };
  #id: string;
  /** The client id under which the outbox's numbers were given. */
  #numbered_by: string;
  #outbox: Outbox;
  #state: SocketState = { is: 'waiting', delay_ms: 0 };
  #socket: WebSocket | null = null;
  #attempts = 0;
  /** Changes with each connection, so that what belongs to an earlier one is known as that. */
  #round = 0;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #pinging: ReturnType<typeof setTimeout> | undefined;
  #silence: ReturnType<typeof setTimeout> | undefined;

  constructor(client: Client, session: string, handlers: Handlers = {}) {
    this.#client = client;
    this.#session = session;
    this.#handlers = handlers;
    this.#key = `coditect.socket.${session}`;
    const kept = this.#kept();
    this.#id = kept?.client ?? client.world.id();
    this.#numbered_by = kept?.numbered_by ?? this.#id;
    this.#outbox = new Outbox(kept?.updates);
    this.#unlisten = [
      client.world.onWake(() => this.#wake()),
      client.world.onLeave(() => this.#flush(true)),
      client.login.onChange((change) => {
        if (change === 'out') this.#end('signed-out');
      }),
    ];
    this.#keep();
    void this.#connect();
  }

  get state(): SocketState {
    return this.#state;
  }

  /** How many updates the server does not have yet. */
  get unacknowledged(): number {
    return this.#outbox.size;
  }

  /** A part as it is with all that was changed here. */
  view<P extends Part>(part: P): Parts[P] {
    const value = this.#outbox.pending(part).reduce<Json>(apply, this.#base[part].value);
    return value as unknown as Parts[P];
  }

  /** Merges `patch` into a part. @throws {OutboxError} there is no room for it. */
  update(part: Part, patch: JsonObject): void {
    this.#outbox.add(part, patch);
    this.#flush();
  }

  /** Makes a part what `change` makes of it. @throws {OutboxError} there is no room for it. */
  change<P extends Part>(part: P, change: (view: Parts[P]) => Parts[P]): void {
    const before = this.view(part);
    const patch = difference(before as unknown as JsonObject, change(before) as unknown as JsonObject);
    if (patch !== undefined) this.update(part, patch);
  }

  /** Ends it. What the server does not have yet stays in the tab, for the next one on this session. */
  close(): void {
    this.#flush(true);
    this.#end('closed');
  }

  async #connect(): Promise<void> {
    const round = ++this.#round;
    clearTimeout(this.#retry);
    this.#become({ is: 'connecting' });
    let ticket: string;
    try {
      ticket = (await this.#client.auth.ticket()).ticket;
    } catch (error) {
      if (round !== this.#round) return;
      if (error instanceof SignedOutError) this.#end('signed-out');
      else this.#wait(error instanceof ApiError ? error.retry_after : null);
      return;
    }
    if (round !== this.#round) return;
    const { origin, WebSocket } = this.#client.world;
    const url = `${origin.replace(/^http/, 'ws')}/api/v5${path`/sessions/${this.#session}/ws`}?client=${this.#id}`;
    const socket = new WebSocket(url, [PROTOCOL, `ticket.${ticket}`]);
    let is_restored = false;
    this.#socket = socket;
    this.#expect(socket);
    socket.addEventListener('message', (event: MessageEvent<unknown>) => {
      if (socket !== this.#socket) return;
      clearTimeout(this.#silence);
      const frame = JSON.parse(String(event.data)) as ServerFrame;
      if (frame.type === 'restore') is_restored = true;
      this.#heard(frame);
    });
    socket.addEventListener('close', (event) => {
      if (socket === this.#socket) void this.#lost(event.code, is_restored);
    });
    // What there is to know comes with `close`; but not everywhere does it come after a refusal.
    socket.addEventListener('error', () => {
      setTimeout(() => {
        if (socket === this.#socket) void this.#lost(1006, is_restored);
      }, CLOSE_AFTER_ERROR_MS);
    });
  }

  #heard(frame: ServerFrame): void {
    switch (frame.type) {
      case 'restore':
        this.#restore(frame);
        break;
      case 'ack': {
        const update = this.#outbox.settle(frame.seq);
        const base = this.#base[frame.part];
        // What others did after it came before it: that has it in it. Updates that were written as one
        // have one version, and each is still to be added.
        if (update !== undefined && frame.version >= base.version) {
          base.value = apply(base.value, update.patch) as JsonObject;
          base.version = frame.version;
        }
        this.#flush();
        break;
      }
      case 'changed': {
        const base = this.#base[frame.part];
        // The version of an update of ours may be that of what it was written over, too: this is all of it.
        if (frame.version < base.version) break;
        base.value = frame.data as unknown as JsonObject;
        base.version = frame.version;
        this.#handlers.part?.(frame.part, 'others');
        break;
      }
      case 'error': {
        const update = typeof frame.seq === 'number' ? this.#outbox.settle(frame.seq) : undefined;
        this.#handlers.refused?.(new ApiError(422, frame.error));
        if (update !== undefined) this.#handlers.part?.(update.part, 'refused');
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

  #restore(frame: ServerFrame & { type: 'restore' }): void {
    this.#id = frame.client;
    this.#outbox.restore(frame.seq, this.#numbered_by === this.#id);
    this.#numbered_by = this.#id;
    this.#attempts = 0;
    const { data, versions } = frame;
    const values: Parts = {
      editor: data.editor_state,
      terminal: data.terminal_state,
      memory: data.session_memory,
    };
    for (const part of PARTS) {
      this.#base[part] = { value: values[part] as unknown as JsonObject, version: versions[part] };
    }
    this.#become({ is: 'open' });
    this.#handlers.restored?.(data);
    for (const part of PARTS) this.#handlers.part?.(part, 'restored');
    this.#flush();
    this.#pingLater();
  }

  async #lost(code: number, was_restored: boolean): Promise<void> {
    const round = ++this.#round;
    this.#drop();
    if (code === 4404) return this.#end('deleted');
    if (code === 4409 || code === 1008) {
      // This id is another tab's now; or the numbers under it do not fit what the server knows.
      this.#id = this.#client.world.id();
      this.#keep();
      if (was_restored && code === 4409) return this.#connect();
    }
    try {
      // A refusal before the first frame has no code here; asking tells whether it is for good.
      if (code === 4401) await this.#client.login.refresh(await this.#client.login.token());
      else if (!was_restored) await this.#client.sessions.show(this.#session);
    } catch (error) {
      if (round !== this.#round) return;
      if (error instanceof SignedOutError) return this.#end('signed-out');
      if (error instanceof ApiError && error.status === 404) return this.#end('deleted');
    }
    if (round === this.#round) this.#wait();
  }

  async #authenticate(): Promise<void> {
    const socket = this.#socket;
    try {
      const token = await this.#client.login.token(LEAST_LIFE_MS);
      if (socket === this.#socket) this.#send({ type: 'authenticate', token });
    } catch {
      // The connection goes on to its end, and the next one is refused or not.
    }
  }

  /** Sends what may be sent; with `all`, what should wait for an answer as well. */
  #flush(all = false): void {
    if (this.#state.is === 'open') {
      for (const { part, patch, seq } of this.#outbox.take(all)) {
        this.#send({ type: `${part}.update`, seq, data: patch });
      }
    }
    this.#keep();
    this.#handlers.unacknowledged?.(this.#outbox.size);
  }

  #send(frame: ClientFrame): void {
    // One that is closing throws nothing and sends nothing; the outbox still has it.
    if (this.#socket?.readyState === 1) this.#socket.send(JSON.stringify(frame));
  }

  /** Somebody looks, or there is a network: the wait is over, and a connection has to show that it lives. */
  #wake(): void {
    if (this.#state.is === 'waiting') {
      this.#attempts = 0;
      void this.#connect();
    } else if (this.#state.is === 'open') {
      this.#ping();
    }
  }

  #pingLater(): void {
    clearTimeout(this.#pinging);
    this.#pinging = setTimeout(() => this.#ping(), PING_EVERY_MS);
  }

  #ping(): void {
    if (this.#socket === null) return;
    this.#send({ type: 'ping' });
    this.#expect(this.#socket);
    this.#pingLater();
  }

  /** Gives `socket` up if it says nothing for too long. */
  #expect(socket: WebSocket): void {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => {
      if (socket === this.#socket) void this.#lost(1006, this.#state.is === 'open');
    }, PATIENCE_MS);
  }

  #wait(asked_s: number | null = null): void {
    const delay_ms = Math.max((asked_s ?? 0) * 1_000, backoff(this.#attempts, this.#client.world.random));
    this.#attempts += 1;
    this.#become({ is: 'waiting', delay_ms });
    this.#retry = setTimeout(() => void this.#connect(), delay_ms);
  }

  #end(why: 'closed' | 'deleted' | 'signed-out'): void {
    if (this.#state.is === 'ended') return;
    this.#round += 1;
    this.#drop();
    clearTimeout(this.#retry);
    for (const unlisten of this.#unlisten) unlisten();
    // Nobody will ever want it; and who signs in next is not to find it.
    if (why !== 'closed') this.#client.world.own.removeItem(this.#key);
    this.#become({ is: 'ended', why });
  }

  #drop(): void {
    const socket = this.#socket;
    this.#socket = null;
    clearTimeout(this.#pinging);
    clearTimeout(this.#silence);
    socket?.close(1000);
  }

  #become(state: SocketState): void {
    this.#state = state;
    this.#handlers.state?.(state);
  }

  #kept(): Kept | null {
    try {
      return JSON.parse(this.#client.world.own.getItem(this.#key) ?? 'null') as Kept | null;
    } catch {
      return null;
    }
  }

  #keep(): void {
    if (this.#state.is === 'ended') return;
    const kept: Kept = { client: this.#id, numbered_by: this.#numbered_by, updates: this.#outbox.updates() };
    this.#client.world.own.setItem(this.#key, JSON.stringify(kept));
  }
}
