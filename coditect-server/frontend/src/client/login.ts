/**
 * The login of this browser, and the tokens that it stands on.
 *
 * The access token, which every request bears, is in memory only and is over in minutes. The refresh token
 * is in `localStorage`: it outlives a reload and all tabs have the same. The price is that a script that
 * runs in this origin could read it; against that stand a Content-Security-Policy that lets no foreign
 * script run, and the server, which ends the whole login as soon as a token that was replaced comes back.
 * (A server that runs with `--cookies` can keep both from scripts altogether; this client does not need it,
 * and works across origins.)
 *
 * What stays true with many tabs:
 *
 * - One tab at a time refreshes, under a Web Lock, and tells the others the new access token by a
 *   BroadcastChannel. Who waited for the lock finds that done and asks nothing.
 * - Where there are no locks, or a tab reads a token that another has just replaced, the server gives the
 *   same successor for some seconds. So a refresh token is only written over the one that it was got for.
 * - What ends the login ends it in all tabs. No answer from the server ends nothing.
 */

import { backoff, delay, type Channel, type Environment } from './environment.js';
import { ApiError, NetworkError, SignedOutError } from './error.js';
import type { Tokens } from './types.js';

/** What is in `localStorage`, as JSON. */
interface Stored {
  /** Tells one login from the next. */
  login: string;
  refresh_token: string;
}

interface Access {
  login: string;
  token: string;
  /** By this tab's clock. */
  expires_at_ms: number;
  life_ms: number;
}

type Said =
  | { type: 'access'; login: string; token: string; life_ms: number; left_ms: number }
  | { type: 'signed-out'; login: string };

/** `in`: another login than before. `out`: none any more. */
export type LoginChange = 'in' | 'out';

export const LOGIN_KEY = 'coditect.login';
const LOCK = 'coditect.refresh';
/** A token is renewed when less than this is left of it, or less than a fifth of its life. */
const MARGIN_MS = 60_000;
const ATTEMPTS = 4;
/** How long a message from one tab to another may take. */
const MESSAGE_MS = 50;

/** Asks the server for the successor of a refresh token. */
export type Exchange = (refresh_token: string) => Promise<Tokens>;

export class Login {
  readonly #world: Environment;
  readonly #exchange: Exchange;
  readonly #channel: Channel | null;
  readonly #unlisten: () => void;
  readonly #listeners = new Set<(change: LoginChange) => void>();
  #access: Access | null = null;
  /** The login that listeners know of. */
  #known: string | null;
  /** The refresh that this tab is at. */
  #refreshing: Promise<string> | null = null;

  constructor(world: Environment, exchange: Exchange) {
    this.#world = world;
    this.#exchange = exchange;
    this.#known = this.#stored()?.login ?? null;
    this.#channel = world.channel(LOGIN_KEY);
    this.#channel?.addEventListener('message', (event) => this.#heard(event.data as Said));
    this.#unlisten = world.onSharedChange((key) => {
      if (key === LOGIN_KEY || key === null) this.#look();
    });
  }

  /** Whether somebody is signed in, as far as is known here. */
  get present(): boolean {
    return this.#stored() !== null;
  }

  /** The refresh token, for whoever ends the login. */
  get refresh_token(): string | null {
    return this.#stored()?.refresh_token ?? null;
  }

  /** Calls back when this or another tab signs in or out. What comes back ends that. */
  onChange(listener: (change: LoginChange) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Somebody has signed in with these. */
  begin(tokens: Tokens): void {
    const login = this.#world.id();
    this.#write({ login, refresh_token: tokens.refresh_token });
    this.#hold(login, tokens);
    this.#look();
  }

  /** The login is over, in all tabs. */
  end(): void {
    const login = this.#stored()?.login;
    this.#access = null;
    this.#world.shared.removeItem(LOGIN_KEY);
    if (login !== undefined) this.#say({ type: 'signed-out', login });
    this.#look();
  }

  /**
   * An access token that holds for a while: for `least_ms`, if tokens here live so long.
   *
   * @throws {SignedOutError} @throws {NetworkError} @throws {ApiError} the server is too busy to give one.
   */
  async token(least_ms = MARGIN_MS): Promise<string> {
    const access = this.#current();
    if (access === null) return this.refresh();
    const left_ms = access.expires_at_ms - this.#world.now();
    if (left_ms > Math.min(least_ms, access.life_ms / 5)) return access.token;
    try {
      return await this.refresh(access.token);
    } catch (error) {
      // It is early: the one that there is may do until the server is there again.
      if (error instanceof NetworkError && left_ms > 1_000) return access.token;
      throw error;
    }
  }

  /**
   * Another access token than `refused`, which the server did not take: a newer one that is known already,
   * or one from the server.
   *
   * @throws as {@link token}.
   */
  refresh(refused?: string): Promise<string> {
    const access = this.#current();
    if (access !== null && refused !== undefined && access.token !== refused)
      return Promise.resolve(access.token);
    const before = this.refresh_token;
    this.#refreshing ??= this.#alone(async () => {
      // Another tab was faster, and what it has to say may still be on its way.
      const is_renewed = before !== null && this.refresh_token !== before;
      if (is_renewed && this.#current()?.token === access?.token) await delay(MESSAGE_MS);
      return this.#renew(access?.token);
    }).finally(() => {
      this.#refreshing = null;
    });
    return this.#refreshing;
  }

  /** Listens no more. The login stays. */
  close(): void {
    this.#unlisten();
    this.#channel?.close();
    this.#listeners.clear();
  }

  #alone<T>(work: () => Promise<T>): Promise<T> {
    return this.#world.lock === null ? work() : this.#world.lock(LOCK, work);
  }

  /** Runs in one tab at a time, where there are locks. */
  async #renew(stale: string | undefined): Promise<string> {
    for (let attempt = 0; ; attempt += 1) {
      const stored = this.#stored();
      if (stored === null) throw new SignedOutError();
      // Another tab was faster, and has said so.
      const access = this.#current();
      if (access !== null && access.token !== stale) return access.token;
      try {
        const tokens = await this.#exchange(stored.refresh_token);
        const now = this.#stored();
        // Signed out meanwhile, or in again: these tokens are nobody's.
        if (now?.login !== stored.login) continue;
        // A tab without locks may have come further, and what it has written is the newer one.
        if (now.refresh_token === stored.refresh_token) {
          this.#write({ login: stored.login, refresh_token: tokens.refresh_token });
        }
        this.#hold(stored.login, tokens);
        return tokens.token;
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        const is_last = attempt + 1 >= ATTEMPTS;
        if (error.status === 401) {
          if (this.#stored()?.refresh_token === stored.refresh_token || is_last) {
            if (this.#stored()?.login === stored.login) this.end();
            throw new SignedOutError();
          }
        } else if ((error.status === 503 || error.status === 429) && !is_last) {
          const asked_ms = Math.min(error.retry_after ?? 0, 10) * 1_000;
          await delay(asked_ms + backoff(attempt, this.#world.random));
        } else {
          throw error;
        }
      }
    }
  }

  #hold(login: string, tokens: Tokens): void {
    const life_ms = tokens.expires_in * 1_000;
    this.#access = { login, token: tokens.token, life_ms, expires_at_ms: this.#world.now() + life_ms };
    this.#say({ type: 'access', login, token: tokens.token, life_ms, left_ms: life_ms });
  }

  /** The access token, if it is of the login that there is and has not ended. */
  #current(): Access | null {
    const access = this.#access;
    if (access === null || access.login !== this.#stored()?.login) return null;
    return access.expires_at_ms > this.#world.now() ? access : null;
  }

  #heard(said: Said): void {
    if (said.type === 'access' && said.login === this.#stored()?.login) {
      const { login, token, life_ms, left_ms } = said;
      this.#access = { login, token, life_ms, expires_at_ms: this.#world.now() + left_ms };
    }
    this.#look(said.type === 'signed-out' ? said.login : undefined);
  }

  /** Tells listeners if the login is another one than they know of. `ended` is over, whatever is stored. */
  #look(ended?: string): void {
    let login = this.#stored()?.login ?? null;
    // The message may be here before what it is about is seen in the store.
    if (login !== null && login === ended) {
      this.#world.shared.removeItem(LOGIN_KEY);
      login = null;
    }
    if (login === this.#known) return;
    this.#known = login;
    if (this.#access?.login !== login) this.#access = null;
    for (const listener of [...this.#listeners]) listener(login === null ? 'out' : 'in');
  }

  #stored(): Stored | null {
    try {
      const stored = JSON.parse(this.#world.shared.getItem(LOGIN_KEY) ?? 'null') as Stored | null;
      return typeof stored?.refresh_token === 'string' ? stored : null;
    } catch {
      return null;
    }
  }

  #write(stored: Stored): void {
    this.#world.shared.setItem(LOGIN_KEY, JSON.stringify(stored));
  }

  #say(said: Said): void {
    this.#channel?.postMessage(said);
  }
}
