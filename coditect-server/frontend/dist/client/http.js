import { backoff, delay } from './environment.js';
import { ApiError, ConflictError, NetworkError } from './error.js';
const BASE = '/api/v5';
const TAGS = 1_000;
const ATTEMPTS = 3;
const NOT_BEGUN = new Set(['RESPONSES_UNREAD', 'REQUESTS_PENDING', 'BUSY']);
const MAX_RETRY_AFTER = 5;
const TYPED = new Set(['INVALID_CREDENTIALS', 'SECOND_FACTOR_REQUIRED', 'SECOND_FACTOR_INVALID']);
export class Http {
    env;
    #tags = new Map();
    #login = null;
    constructor(env) {
        this.env = env;
    }
    withToken(login) {
        this.#login = login;
    }
    clearEtags() {
        this.#tags.clear();
    }
    async request(method, path, options = {}) {
        const answer = await this.raw(method, path, options);
        const etag = answer.headers.get('ETag');
        if (answer.status === 204)
            return { data: undefined, etag, next_cursor: null };
        const body = await this.#read(answer);
        return { data: body.data, etag, next_cursor: body.next_cursor ?? null };
    }
    async raw(method, path, options = {}) {
        const if_match = options.if_match === undefined ? this.#tags.get(path) : options.if_match;
        const headers = { Accept: 'application/json', ...options.headers };
        if (method !== 'GET' && method !== 'HEAD' && method !== 'POST' && if_match)
            headers['If-Match'] = if_match;
        if (method === 'POST')
            headers['Idempotency-Key'] ??= this.env.id();
        const init = {
            method,
            headers,
            cache: 'no-store',
            credentials: 'omit',
            redirect: 'error',
        };
        if (options.json !== undefined) {
            headers['Content-Type'] = 'application/json';
            init.body = JSON.stringify(options.json);
        }
        else if (options.body !== undefined) {
            init.body = options.body;
        }
        if (options.signal)
            init.signal = options.signal;
        if (options.keepalive)
            init.keepalive = true;
        const answer = await this.#send(url(this.env.origin, path, options.query), init, options.signed_in !== false);
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
    async #send(url, init, signed_in) {
        const headers = init.headers;
        const login = signed_in ? this.#login : null;
        let token = await login?.token();
        for (let retried = false;; retried = true) {
            if (token !== undefined)
                headers['Authorization'] = `Bearer ${token}`;
            const answer = await this.#fetch(url, init);
            if (answer.status !== 401 || !login || retried)
                return answer;
            const refusal = await this.#refusal(answer.clone());
            if (TYPED.has(refusal.code))
                return answer;
            token = await login.refresh(token);
        }
    }
    async #fetch(url, init) {
        const is_repeatable = init.method === 'GET' || init.method === 'HEAD' || init.method === 'POST';
        for (let attempt = 0;; attempt += 1) {
            const is_last = attempt + 1 >= ATTEMPTS;
            let wait_ms = backoff(attempt, this.env.random);
            try {
                const answer = await this.env.fetch(url, init);
                const retry_after = is_last ? null : await this.#retryAfter(answer, init, is_repeatable);
                if (retry_after === null)
                    return answer;
                wait_ms += retry_after * 1_000;
            }
            catch (error) {
                if (init.signal?.aborted)
                    throw error;
                if (!is_repeatable || is_last)
                    throw new NetworkError(error);
            }
            await delay(wait_ms, init.signal ?? undefined);
        }
    }
    async #retryAfter(answer, init, is_repeatable) {
        if (answer.status !== 429 && answer.status !== 503)
            return null;
        if (typeof ReadableStream !== 'undefined' && init.body instanceof ReadableStream)
            return null;
        const { code, retry_after } = await this.#refusal(answer.clone());
        const is_retried = NOT_BEGUN.has(code) || (answer.status === 503 && is_repeatable);
        return is_retried && retry_after !== null && retry_after <= MAX_RETRY_AFTER
            ? retry_after
            : null;
    }
    async #current(path, options) {
        const read = options.current ?? (async (answer) => (await this.#read(answer)).data);
        try {
            const asked = options.signal ? { signal: options.signal } : {};
            const answer = await this.raw('GET', path, asked);
            return { value: await read(answer), etag: answer.headers.get('ETag') ?? '' };
        }
        catch (error) {
            if (error instanceof ApiError && error.status === 404)
                return null;
            throw error;
        }
    }
    #keep(method, path, query, etag) {
        if (method === 'DELETE')
            this.#tags.delete(path);
        if (etag === null || query !== undefined || method === 'POST')
            return;
        this.#tags.delete(path);
        this.#tags.set(path, etag);
        const [oldest] = this.#tags.keys();
        if (this.#tags.size > TAGS && oldest !== undefined)
            this.#tags.delete(oldest);
    }
    async #refusal(answer) {
        const retry_after = Number.parseInt(answer.headers.get('Retry-After') ?? '', 10);
        const text = await answer.text().catch(() => '');
        let body = null;
        try {
            body = JSON.parse(text);
        }
        catch {
        }
        const error = { ...(body?.error ?? {}) };
        const request_id = error.request_id ?? answer.headers.get('X-Request-Id');
        if (request_id !== null)
            error.request_id = request_id;
        return new ApiError(answer.status, error, Number.isNaN(retry_after) ? null : retry_after);
    }
    async #read(answer) {
        let text;
        try {
            text = await answer.text();
        }
        catch (error) {
            throw new NetworkError(error);
        }
        try {
            return JSON.parse(text);
        }
        catch {
            throw new ApiError(answer.status, {
                code: 'INVALID_ANSWER',
                message: 'The response is not JSON.',
            });
        }
    }
}
export function path(strings, ...values) {
    const parts = values.map((value) => value.split('/').map(encodeURIComponent).join('/'));
    return strings.reduce((text, next, at) => text + (parts[at - 1] ?? '') + next);
}
function url(origin, path, query = {}) {
    const given = Object.entries(query).filter((pair) => pair[1] !== undefined);
    const search = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
    return `${origin}${BASE}${path}${search === '' ? '' : `?${search}`}`;
}
