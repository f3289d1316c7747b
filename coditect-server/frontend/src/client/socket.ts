/**
 * The parts of a session, synchronized with the server over a reconnecting WebSocket.
 *
 * A change is visible at once. Its update is sent as soon as possible, stored until the server has
 * it on disk, and sent again after a lost connection, a restart of the server or a reload of the
 * page; its number lets the server apply it once. Changes by others are received, and pending
 * updates stay on top of them.
 *
 * It ends when the session is deleted, the login ends, or it is closed.
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
  /** Reconnects automatically. */
  | { is: 'waiting'; delay_ms: number }
  | { is: 'ended'; why: 'closed' | 'deleted' | 'signed-out' };

/** Reason for a changed part. */
export type Cause = 'restored' | 'others' | 'refused';

export interface Handlers {
  state?(state: SocketState): void;
  /** Called after each connect, before `part` is called for each part. */
  restored?(restored: Restored): void;
  part?(part: Part, cause: Cause): void;
  /** The server has refused an update; it is undone here. */
  refused?(error: ApiError): void;
  /** Number of unacknowledged updates. */
  unacknowledged?(count: number): void;
}

/** State of a tab that survives a reload. */
interface Kept {
  client: string;
  /** Client id of the sequence numbers. */
  numbered_by: string;
  updates: Update[];
}

interface Base {
  value: JsonObject;
  version: number;
}

const PROTOCOL = 'coditect.v1';
const PARTS: readonly Part[] = ['editor', 'terminal', 'memory'];
const PING_INTERVAL_MS = 20_000;
/** Maximum time for a response to a ping, or to a new connection. */
const RESPONSE_TIMEOUT_MS = 10_000;
const CLOSE_AFTER_ERROR_MS = 500;
/** Minimum remaining lifetime of a token for an open connection. */
const MIN_TOKEN_LIFE_MS = 180_000;

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
  /** Client id of the sequence numbers in the outbox. */
  #numbered_by: string;
  #outbox: Outbox;
  #state: SocketState = { is: 'waiting', delay_ms: 0 };
  #socket: WebSocket | null = null;
  #attempts = 0;
  /** Changes with each connection, to recognise callbacks of earlier ones. */
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
    this.#id = kept?.client ?? client.env.id();
    this.#numbered_by = kept?.numbered_by ?? this.#id;
    this.#outbox = new Outbox(kept?.updates);
    this.#unlisten = [
      client.env.onWake(() => this.#wake()),
      client.env.onLeave(() => this.#flush(true)),
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

  /** Number of unacknowledged updates. */
  get unacknowledged(): number {
    return this.#outbox.size;
  }

  /** Returns a part with all local changes. */
  view<P extends Part>(part: P): Parts[P] {
    const value = this.#outbox.pending(part).reduce<Json>(apply, this.#base[part].value);
    return value as unknown as Parts[P];
  }

  /** Merges `patch` into a part. @throws {OutboxError} there is no room for it. */
  update(part: Part, patch: JsonObject): void {
    this.#outbox.add(part, patch);
    this.#flush();
  }

  /** Replaces a part by the result of `change`. @throws {OutboxError} there is no room for it. */
  change<P extends Part>(part: P, change: (view: Parts[P]) => Parts[P]): void {
    const before = this.view(part);
    const patch = difference(
      before as unknown as JsonObject,
      change(before) as unknown as JsonObject,
    );
    if (patch !== undefined) this.update(part, patch);
  }

  /**
   * Closes the socket. Unacknowledged updates stay in the tab for the next socket of this session.
   */
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
    const { origin, WebSocket } = this.#client.env;
    const session = path`/sessions/${this.#session}/ws`;
    const url = `${origin.replace(/^http/, 'ws')}/api/v5${session}?client=${this.#id}`;
    const socket = new WebSocket(url, [PROTOCOL, `ticket.${ticket}`]);
    let is_restored = false;
    this.#socket = socket;
    this.#expect(socket);
    socket.addEventListener('message', (event: MessageEvent<unknown>) => {
      if (socket !== this.#socket) return;
      clearTimeout(this.#silence);
      const frame = JSON.parse(String(event.data)) as ServerFrame;
      if (frame.type === 'restore') is_restored = true;
      this.#onMessage(frame);
    });
    socket.addEventListener('close', (event) => {
      if (socket === this.#socket) void this.#lost(event.code, is_restored);
    });
    // Details come with `close`, but not every browser fires it after a refusal.
    socket.addEventListener('error', () => {
      setTimeout(() => {
        if (socket === this.#socket) void this.#lost(1006, is_restored);
      }, CLOSE_AFTER_ERROR_MS);
    });
  }

  #onMessage(frame: ServerFrame): void {
    switch (frame.type) {
      case 'restore':
        this.#restore(frame);
        break;
      case 'ack': {
        const update = this.#outbox.settle(frame.seq);
        const base = this.#base[frame.part];
        // A later change by others that arrived before includes this update. Updates written
        // together have the same version, and each is still to be applied.
        if (update !== undefined && frame.version >= base.version) {
          base.value = apply(base.value, update.patch) as JsonObject;
          base.version = frame.version;
        }
        this.#flush();
        break;
      }
      case 'changed': {
        const base = this.#base[frame.part];
        // An update of this client may have the same version as the state that it was merged into;
        // this is the complete state.
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
      // Another tab uses this client id, or its numbers do not match the server's.
      this.#id = this.#client.env.id();
      this.#keep();
      if (was_restored && code === 4409) return this.#connect();
    }
    try {
      // A refusal before the first message has no code; a request shows whether it is final.
      if (code === 4401) await this.#client.login.refresh(await this.#client.login.token());
      else if (!was_restored) await this.#client.sessions.get(this.#session);
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
      const token = await this.#client.login.token(MIN_TOKEN_LIFE_MS);
      if (socket === this.#socket) this.#send({ type: 'authenticate', token });
    } catch {
      // The connection continues until it expires, and the next one shows whether there is still a
      // login.
    }
  }

  /** Sends the updates that may be sent; with `all`, also ones that must wait for a response. */
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
    // A closing socket ignores it; the outbox keeps the update.
    if (this.#socket?.readyState === 1) this.#socket.send(JSON.stringify(frame));
  }

  /** The tab is visible or the network is back: reconnect now, or check the connection. */
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
    this.#pinging = setTimeout(() => this.#ping(), PING_INTERVAL_MS);
  }

  #ping(): void {
    if (this.#socket === null) return;
    this.#send({ type: 'ping' });
    this.#expect(this.#socket);
    this.#pingLater();
  }

  /** Drops the connection if `socket` receives nothing for too long. */
  #expect(socket: WebSocket): void {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => {
      if (socket === this.#socket) void this.#lost(1006, this.#state.is === 'open');
    }, RESPONSE_TIMEOUT_MS);
  }

  #wait(asked_s: number | null = null): void {
    const delay_ms = Math.max(
      (asked_s ?? 0) * 1_000,
      backoff(this.#attempts, this.#client.env.random),
    );
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
    // It is of no more use, and the next user must not find it.
    if (why !== 'closed') this.#client.env.own.removeItem(this.#key);
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
      return JSON.parse(this.#client.env.own.getItem(this.#key) ?? 'null') as Kept | null;
    } catch {
      return null;
    }
  }

  #keep(): void {
    if (this.#state.is === 'ended') return;
    const kept: Kept = {
      client: this.#id,
      numbered_by: this.#numbered_by,
      updates: this.#outbox.updates(),
    };
    this.#client.env.own.setItem(this.#key, JSON.stringify(kept));
  }
}
