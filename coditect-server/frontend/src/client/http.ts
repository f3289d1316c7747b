/**
 * Requests: removes the envelope, turns refusals into errors, adds the access token.
 *
 * - After a 401 about the token, a request is sent once more with a new token.
 * - The entity tag of a read resource is remembered and sent as `If-Match` with a change, so that a
 *   version that was not read is never overwritten. The refusal is a {@link ConflictError} with the
 *   present state.
 * - Requests that may be repeated (reads; POSTs, because of their `Idempotency-Key`) are retried
 *   with backoff if there is no response, or a 503. Any request is retried that the server refused
 *   before it began, for lack of memory: 429 `RESPONSES_UNREAD` or `REQUESTS_PENDING`, 503 `BUSY`.
 *   For all others the caller decides.
 */

import { backoff, delay, type Environment } from './environment.js';
import { ApiError, ConflictError, NetworkError, type Current } from './error.js';
import type { Login } from './login.js';
import type { Failure, Success } from './types.js';

export type Method = 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
export type Query = Record<string, string | number | boolean | undefined>;

export interface Options {
  query?: Query;
  /** Body to send as JSON. */
  json?: unknown;
  /** Body to send unchanged. */
  body?: BodyInit;
  headers?: Record<string, string>;
  /** Required entity tag; `null` for none. Default: the tag of the last read. */
  if_match?: string | null;
  /** `false` sends no access token. */
  signed_in?: boolean;
  /** Reads the present state after a conflict. Default: JSON. */
  current?: (answer: Response) => Promise<unknown>;
  signal?: AbortSignal;
  /** Completes even if the page is closed. */
  keepalive?: boolean;
}

export interface Answer<T> {
  data: T;
  etag: string | null;
  next_cursor: string | null;
}

const BASE = '/api/v5';
/** Maximum number of remembered tags; the oldest are dropped. */
const TAGS = 1_000;
const ATTEMPTS = 3;
/** Codes of responses to requests that were refused before they began. */
const NOT_BEGUN = new Set(['RESPONSES_UNREAD', 'REQUESTS_PENDING', 'BUSY']);
/** Longest `Retry-After` that is waited for, in seconds; a longer one is the caller's decision. */
const MAX_RETRY_AFTER = 5;
/** Codes of a 401 about the user's input, not about the token. */
const TYPED = new Set(['INVALID_CREDENTIALS', 'SECOND_FACTOR_REQUIRED', 'SECOND_FACTOR_INVALID']);

export class Http {
  readonly env: Environment;
  /** Entity tags of read resources, by path. */
  readonly #tags = new Map<string, string>();
  #login: Login | null = null;

  constructor(env: Environment) {
    this.env = env;
  }

  /** Sends the tokens of `login` from now on. */
  withToken(login: Login): void {
    this.#login = login;
  }

  /** Drops the remembered tags, as they were read by another user. */
  clearEtags(): void {
    this.#tags.clear();
  }

  /** @throws {ApiError} @throws {NetworkError} @throws {SignedOutError} */
  async request<T>(method: Method, path: string, options: Options = {}): Promise<Answer<T>> {
    const answer = await this.raw(method, path, options);
    const etag = answer.headers.get('ETag');
    if (answer.status === 204) return { data: undefined as T, etag, next_cursor: null };
    const body = await this.#read<Success<T>>(answer);
    return { data: body.data, etag, next_cursor: body.next_cursor ?? null };
  }

  /** Returns the response without parsing it. @throws as {@link request}. */
  async raw(method: Method, path: string, options: Options = {}): Promise<Response> {
    const if_match = options.if_match === undefined ? this.#tags.get(path) : options.if_match;
    const headers: Record<string, string> = { Accept: 'application/json', ...options.headers };
    if (method !== 'GET' && method !== 'HEAD' && method !== 'POST' && if_match)
      headers['If-Match'] = if_match;
    if (method === 'POST') headers['Idempotency-Key'] ??= this.env.id();
    const init: RequestInit = {
      method,
      headers,
      cache: 'no-store',
      credentials: 'omit',
      redirect: 'error',
    };
    if (options.json !== undefined) {
      headers['Content-Type'] = 'application/json';
      init.body = JSON.stringify(options.json);
    } else if (options.body !== undefined) {
      init.body = options.body;
    }
    if (options.signal) init.signal = options.signal;
    if (options.keepalive) init.keepalive = true;

    const answer = await this.#send(
      url(this.env.origin, path, options.query),
      init,
      options.signed_in !== false,
    );
    if (answer.ok) {
      this.#keep(method, path, options.query, answer.headers.get('ETag'));
      return answer;
    }
    const refusal = await this.#refusal(answer);
    if (refusal.status === 412 && method !== 'POST') {
      throw new ConflictError(refusal, await this.#current(path, options));
    }
    throw refusal;
  }

  async #send(url: string, init: RequestInit, signed_in: boolean): Promise<Response> {
    const headers = init.headers as Record<string, string>;
    const login = signed_in ? this.#login : null;
    let token = await login?.token();
    for (let retried = false; ; retried = true) {
      if (token !== undefined) headers['Authorization'] = `Bearer ${token}`;
      const answer = await this.#fetch(url, init);
      if (answer.status !== 401 || !login || retried) return answer;
      const refusal = await this.#refusal(answer.clone());
      if (TYPED.has(refusal.code)) return answer;
      token = await login.refresh(token);
    }
  }

  async #fetch(url: string, init: RequestInit): Promise<Response> {
    const is_repeatable = init.method === 'GET' || init.method === 'HEAD' || init.method === 'POST';
    for (let attempt = 0; ; attempt += 1) {
      const is_last = attempt + 1 >= ATTEMPTS;
      let wait_ms = backoff(attempt, this.env.random);
      try {
        const answer = await this.env.fetch(url, init);
        const retry_after = is_last ? null : await this.#retryAfter(answer, init, is_repeatable);
        if (retry_after === null) return answer;
        // Full jitter on top, so that those who were refused at once do not come back at once.
        wait_ms += retry_after * 1_000;
      } catch (error) {
        if (init.signal?.aborted) throw error;
        if (!is_repeatable || is_last) throw new NetworkError(error);
      }
      await delay(wait_ms, init.signal ?? undefined);
    }
  }

  /** Returns the seconds until the request may be repeated, or `null` if this is its response. */
  async #retryAfter(
    answer: Response,
    init: RequestInit,
    is_repeatable: boolean,
  ): Promise<number | null> {
    if (answer.status !== 429 && answer.status !== 503) return null;
    // A stream is sent once.
    if (typeof ReadableStream !== 'undefined' && init.body instanceof ReadableStream) return null;
    const { code, retry_after } = await this.#refusal(answer.clone());
    const is_retried = NOT_BEGUN.has(code) || (answer.status === 503 && is_repeatable);
    return is_retried && retry_after !== null && retry_after <= MAX_RETRY_AFTER
      ? retry_after
      : null;
  }

  async #current(path: string, options: Options): Promise<Current<unknown> | null> {
    const read =
      options.current ?? (async (answer) => (await this.#read<Success<unknown>>(answer)).data);
    try {
      const asked: Options = options.signal ? { signal: options.signal } : {};
      const answer = await this.raw('GET', path, asked);
      return { value: await read(answer), etag: answer.headers.get('ETag') ?? '' };
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) return null;
      throw error;
    }
  }

  #keep(method: Method, path: string, query: Query | undefined, etag: string | null): void {
    if (method === 'DELETE') this.#tags.delete(path);
    // With a query, the tag is that of a part or of an older content.
    if (etag === null || query !== undefined || method === 'POST') return;
    this.#tags.delete(path);
    this.#tags.set(path, etag);
    const [oldest] = this.#tags.keys();
    if (this.#tags.size > TAGS && oldest !== undefined) this.#tags.delete(oldest);
  }

  async #refusal(answer: Response): Promise<ApiError> {
    const retry_after = Number.parseInt(answer.headers.get('Retry-After') ?? '', 10);
    const text = await answer.text().catch(() => '');
    let body: Partial<Failure> | null = null;
    try {
      body = JSON.parse(text) as Partial<Failure> | null;
    } catch {
      // The response of a proxy.
    }
    const error = { ...(body?.error ?? {}) };
    const request_id = error.request_id ?? answer.headers.get('X-Request-Id');
    if (request_id !== null) error.request_id = request_id;
    return new ApiError(answer.status, error, Number.isNaN(retry_after) ? null : retry_after);
  }

  async #read<B>(answer: Response): Promise<B> {
    let text: string;
    try {
      text = await answer.text();
    } catch (error) {
      throw new NetworkError(error);
    }
    try {
      return JSON.parse(text) as B;
    } catch {
      throw new ApiError(answer.status, {
        code: 'INVALID_ANSWER',
        message: 'The response is not JSON.',
      });
    }
  }
}

/** Returns a path of the API with encoded segments: `/sessions/ID/files/a%20b`. */
export function path(strings: TemplateStringsArray, ...values: string[]): string {
  const parts = values.map((value) => value.split('/').map(encodeURIComponent).join('/'));
  return strings.reduce((text, next, at) => text + (parts[at - 1] ?? '') + next);
}

function url(origin: string, path: string, query: Query = {}): string {
  const given = Object.entries(query).filter(
    (pair): pair is [string, string | number | boolean] => pair[1] !== undefined,
  );
  const search = new URLSearchParams(
    given.map(([name, value]) => [name, String(value)]),
  ).toString();
  return `${origin}${BASE}${path}${search === '' ? '' : `?${search}`}`;
}
