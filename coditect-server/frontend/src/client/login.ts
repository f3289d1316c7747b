/**
 * The login of this browser and its tokens.
 *
 * The access token, sent with every request, is only in memory and expires within minutes. The
 * refresh token is in `localStorage`, shared by all tabs, and survives a reload. A script in this
 * origin could read it; against that, a Content-Security-Policy permits no foreign scripts, and the
 * server ends the login as soon as a replaced token is used again. (With `--cookies` a server can
 * hide both tokens from scripts; this client does not use that, and works across origins.)
 *
 * Invariants with several tabs:
 *
 * - Only one tab refreshes at a time, under a Web Lock, and sends the new access token to the
 *   others over a BroadcastChannel. A tab that waited for the lock uses that token.
 * - Without locks, or if a tab reads a token just replaced by another, the server returns the same
 *   successor for some seconds. So a refresh token only replaces the one that it was issued for.
 * - The end of the login applies to all tabs. A missing response ends nothing.
 */

import { backoff, delay, type Channel, type Environment } from './environment.js';
import { ApiError, NetworkError, SignedOutError } from './error.js';
import type { Tokens } from './types.js';

/** The value in `localStorage`, as JSON. */
interface Stored {
  /** Distinguishes logins. */
  login: string;
  refresh_token: string;
}

interface Access {
  login: string;
  token: string;
  /** By the clock of this tab. */
  expires_at_ms: number;
  life_ms: number;
}

type TabMessage =
  | { type: 'access'; login: string; token: string; life_ms: number; left_ms: number }
  | { type: 'signed-out'; login: string };

/** `in`: another login. `out`: no login. */
export type LoginChange = 'in' | 'out';

export const LOGIN_KEY = 'coditect.login';
const LOCK = 'coditect.refresh';
/**
 * A token is refreshed when its remaining lifetime is below this, or below a fifth of the whole.
 */
const MARGIN_MS = 60_000;
const ATTEMPTS = 4;
/** Time for a message between tabs to arrive. */
const MESSAGE_MS = 50;

/** Exchanges a refresh token for new tokens. */
export type Exchange = (refresh_token: string) => Promise<Tokens>;

export class Login {
  readonly #env: Environment;
  readonly #exchange: Exchange;
  readonly #channel: Channel | null;
  readonly #unlisten: () => void;
  readonly #listeners = new Set<(change: LoginChange) => void>();
  #access: Access | null = null;
  /** The login that listeners know. */
  #known: string | null;
  /** The refresh in progress in this tab. */
  #refreshing: Promise<string> | null = null;

  constructor(env: Environment, exchange: Exchange) {
    this.#env = env;
    this.#exchange = exchange;
    this.#known = this.#stored()?.login ?? null;
    this.#channel = env.channel(LOGIN_KEY);
    this.#channel?.addEventListener('message', (event) =>
      this.#onMessage(event.data as TabMessage),
    );
    this.#unlisten = env.onSharedChange((key) => {
      if (key === LOGIN_KEY || key === null) this.#look();
    });
  }

  /** Whether there is a login, as known in this tab. */
  get present(): boolean {
    return this.#stored() !== null;
  }

  /** The refresh token, for a logout. */
  get refresh_token(): string | null {
    return this.#stored()?.refresh_token ?? null;
  }

  /** Calls back when this or another tab signs in or out. Returns a function that stops it. */
  onChange(listener: (change: LoginChange) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Starts a login with these tokens. */
  begin(tokens: Tokens): void {
    const login = this.#env.id();
    this.#write({ login, refresh_token: tokens.refresh_token });
    this.#hold(login, tokens);
    this.#look();
  }

  /** Ends the login in all tabs. */
  end(): void {
    const login = this.#stored()?.login;
    this.#access = null;
    this.#env.shared.removeItem(LOGIN_KEY);
    if (login !== undefined) this.#post({ type: 'signed-out', login });
    this.#look();
  }

  /**
   * Returns an access token that is valid for `least_ms`, if tokens live that long.
   *
   * @throws {SignedOutError} @throws {NetworkError} @throws {ApiError} the server is too busy.
   */
  async token(least_ms = MARGIN_MS): Promise<string> {
    const access = this.#current();
    if (access === null) return this.refresh();
    const left_ms = access.expires_at_ms - this.#env.now();
    if (left_ms > Math.min(least_ms, access.life_ms / 5)) return access.token;
    try {
      return await this.refresh(access.token);
    } catch (error) {
      // The present token is still valid and is used until the server is back.
      if (error instanceof NetworkError && left_ms > 1_000) return access.token;
      throw error;
    }
  }

  /**
   * Returns another access token than `refused`: a newer known one, or one from the server.
   *
   * @throws as {@link token}.
   */
  refresh(refused?: string): Promise<string> {
    const access = this.#current();
    if (access !== null && refused !== undefined && access.token !== refused)
      return Promise.resolve(access.token);
    const before = this.refresh_token;
    this.#refreshing ??= this.#alone(async () => {
      // Another tab has refreshed, and its message may not have arrived yet.
      const is_renewed = before !== null && this.refresh_token !== before;
      if (is_renewed && this.#current()?.token === access?.token) await delay(MESSAGE_MS);
      return this.#renew(access?.token);
    }).finally(() => {
      this.#refreshing = null;
    });
    return this.#refreshing;
  }

  /** Stops listening. The login stays. */
  close(): void {
    this.#unlisten();
    this.#channel?.close();
    this.#listeners.clear();
  }

  #alone<T>(work: () => Promise<T>): Promise<T> {
    return this.#env.lock === null ? work() : this.#env.lock(LOCK, work);
  }

  /** Runs in one tab at a time, if there are locks. */
  async #renew(stale: string | undefined): Promise<string> {
    for (let attempt = 0; ; attempt += 1) {
      const stored = this.#stored();
      if (stored === null) throw new SignedOutError();
      // Another tab has refreshed.
      const access = this.#current();
      if (access !== null && access.token !== stale) return access.token;
      try {
        const tokens = await this.#exchange(stored.refresh_token);
        const now = this.#stored();
        // Signed out or in again meanwhile: these tokens are useless.
        if (now?.login !== stored.login) continue;
        // A tab without locks may have refreshed again, and has stored the newer token.
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
          await delay(asked_ms + backoff(attempt, this.#env.random));
        } else {
          throw error;
        }
      }
    }
  }

  #hold(login: string, tokens: Tokens): void {
    const life_ms = tokens.expires_in * 1_000;
    this.#access = {
      login,
      token: tokens.token,
      life_ms,
      expires_at_ms: this.#env.now() + life_ms,
    };
    this.#post({ type: 'access', login, token: tokens.token, life_ms, left_ms: life_ms });
  }

  /** Returns the access token, if it belongs to the present login and has not expired. */
  #current(): Access | null {
    const access = this.#access;
    if (access === null || access.login !== this.#stored()?.login) return null;
    return access.expires_at_ms > this.#env.now() ? access : null;
  }

  #onMessage(message: TabMessage): void {
    if (message.type === 'access' && message.login === this.#stored()?.login) {
      const { login, token, life_ms, left_ms } = message;
      this.#access = { login, token, life_ms, expires_at_ms: this.#env.now() + left_ms };
    }
    this.#look(message.type === 'signed-out' ? message.login : undefined);
  }

  /** Notifies listeners if the login has changed. `ended` is over even if it is still stored. */
  #look(ended?: string): void {
    let login = this.#stored()?.login ?? null;
    // The message may arrive before the change of the storage is visible.
    if (login !== null && login === ended) {
      this.#env.shared.removeItem(LOGIN_KEY);
      login = null;
    }
    if (login === this.#known) return;
    this.#known = login;
    if (this.#access?.login !== login) this.#access = null;
    for (const listener of [...this.#listeners]) listener(login === null ? 'out' : 'in');
  }

  #stored(): Stored | null {
    try {
      const stored = JSON.parse(this.#env.shared.getItem(LOGIN_KEY) ?? 'null') as Stored | null;
      return typeof stored?.refresh_token === 'string' ? stored : null;
    } catch {
      return null;
    }
  }

  #write(stored: Stored): void {
    this.#env.shared.setItem(LOGIN_KEY, JSON.stringify(stored));
  }

  #post(message: TabMessage): void {
    this.#channel?.postMessage(message);
  }
}
