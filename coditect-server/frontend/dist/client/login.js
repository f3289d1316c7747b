import { backoff, delay } from './environment.js';
import { ApiError, NetworkError, SignedOutError } from './error.js';
export const LOGIN_KEY = 'coditect.login';
const LOCK = 'coditect.refresh';
const MARGIN_MS = 60_000;
const ATTEMPTS = 4;
const MESSAGE_MS = 50;
export class Login {
    #env;
    #exchange;
    #channel;
    #unlisten;
    #listeners = new Set();
    #access = null;
    #known;
    #refreshing = null;
    constructor(env, exchange) {
        this.#env = env;
        this.#exchange = exchange;
        this.#known = this.#stored()?.login ?? null;
        this.#channel = env.channel(LOGIN_KEY);
        this.#channel?.addEventListener('message', (event) => this.#onMessage(event.data));
        this.#unlisten = env.onSharedChange((key) => {
            if (key === LOGIN_KEY || key === null)
                this.#look();
        });
    }
    get present() {
        return this.#stored() !== null;
    }
    get refresh_token() {
        return this.#stored()?.refresh_token ?? null;
    }
    onChange(listener) {
        this.#listeners.add(listener);
        return () => this.#listeners.delete(listener);
    }
    begin(tokens) {
        const login = this.#env.id();
        this.#write({ login, refresh_token: tokens.refresh_token });
        this.#hold(login, tokens);
        this.#look();
    }
    end() {
        const login = this.#stored()?.login;
        this.#access = null;
        this.#env.shared.removeItem(LOGIN_KEY);
        if (login !== undefined)
            this.#post({ type: 'signed-out', login });
        this.#look();
    }
    async token(least_ms = MARGIN_MS) {
        const access = this.#current();
        if (access === null)
            return this.refresh();
        const left_ms = access.expires_at_ms - this.#env.now();
        if (left_ms > Math.min(least_ms, access.life_ms / 5))
            return access.token;
        try {
            return await this.refresh(access.token);
        }
        catch (error) {
            if (error instanceof NetworkError && left_ms > 1_000)
                return access.token;
            throw error;
        }
    }
    refresh(refused) {
        const access = this.#current();
        if (access !== null && refused !== undefined && access.token !== refused)
            return Promise.resolve(access.token);
        const before = this.refresh_token;
        this.#refreshing ??= this.#alone(async () => {
            const is_renewed = before !== null && this.refresh_token !== before;
            if (is_renewed && this.#current()?.token === access?.token)
                await delay(MESSAGE_MS);
            return this.#renew(access?.token);
        }).finally(() => {
            this.#refreshing = null;
        });
        return this.#refreshing;
    }
    close() {
        this.#unlisten();
        this.#channel?.close();
        this.#listeners.clear();
    }
    #alone(work) {
        return this.#env.lock === null ? work() : this.#env.lock(LOCK, work);
    }
    async #renew(stale) {
        for (let attempt = 0;; attempt += 1) {
            const stored = this.#stored();
            if (stored === null)
                throw new SignedOutError();
            const access = this.#current();
            if (access !== null && access.token !== stale)
                return access.token;
            try {
                const tokens = await this.#exchange(stored.refresh_token);
                const now = this.#stored();
                if (now?.login !== stored.login)
                    continue;
                if (now.refresh_token === stored.refresh_token) {
                    this.#write({ login: stored.login, refresh_token: tokens.refresh_token });
                }
                this.#hold(stored.login, tokens);
                return tokens.token;
            }
            catch (error) {
                if (!(error instanceof ApiError))
                    throw error;
                const is_last = attempt + 1 >= ATTEMPTS;
                if (error.status === 401) {
                    if (this.#stored()?.refresh_token === stored.refresh_token || is_last) {
                        if (this.#stored()?.login === stored.login)
                            this.end();
                        throw new SignedOutError();
                    }
                }
                else if ((error.status === 503 || error.status === 429) && !is_last) {
                    const asked_ms = Math.min(error.retry_after ?? 0, 10) * 1_000;
                    await delay(asked_ms + backoff(attempt, this.#env.random));
                }
                else {
                    throw error;
                }
            }
        }
    }
    #hold(login, tokens) {
        const life_ms = tokens.expires_in * 1_000;
        this.#access = {
            login,
            token: tokens.token,
            life_ms,
            expires_at_ms: this.#env.now() + life_ms,
        };
        this.#post({ type: 'access', login, token: tokens.token, life_ms, left_ms: life_ms });
    }
    #current() {
        const access = this.#access;
        if (access === null || access.login !== this.#stored()?.login)
            return null;
        return access.expires_at_ms > this.#env.now() ? access : null;
    }
    #onMessage(message) {
        if (message.type === 'access' && message.login === this.#stored()?.login) {
            const { login, token, life_ms, left_ms } = message;
            this.#access = { login, token, life_ms, expires_at_ms: this.#env.now() + left_ms };
        }
        this.#look(message.type === 'signed-out' ? message.login : undefined);
    }
    #look(ended) {
        let login = this.#stored()?.login ?? null;
        if (login !== null && login === ended) {
            this.#env.shared.removeItem(LOGIN_KEY);
            login = null;
        }
        if (login === this.#known)
            return;
        this.#known = login;
        if (this.#access?.login !== login)
            this.#access = null;
        for (const listener of [...this.#listeners])
            listener(login === null ? 'out' : 'in');
    }
    #stored() {
        try {
            const stored = JSON.parse(this.#env.shared.getItem(LOGIN_KEY) ?? 'null');
            return typeof stored?.refresh_token === 'string' ? stored : null;
        }
        catch {
            return null;
        }
    }
    #write(stored) {
        this.#env.shared.setItem(LOGIN_KEY, JSON.stringify(stored));
    }
    #post(message) {
        this.#channel?.postMessage(message);
    }
}
