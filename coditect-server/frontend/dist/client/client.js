import { browser } from './environment.js';
import { ApiError } from './error.js';
import { Http, path } from './http.js';
import { Login } from './login.js';
export class Client {
    env;
    login;
    #http;
    constructor(env = browser()) {
        this.env = env;
        this.#http = new Http(env);
        const exchange = (refresh_token) => this.#data('POST', '/auth/refresh', { json: { refresh_token }, signed_in: false });
        this.login = new Login(env, exchange);
        this.#http.withToken(this.login);
        this.login.onChange(() => this.#http.clearEtags());
    }
    close() {
        this.login.close();
    }
    health() {
        return this.#data('GET', '/health', { signed_in: false });
    }
    auth = {
        register: async (registration) => {
            const json = registration;
            const made = await this.#data('POST', '/auth/register', {
                json,
                signed_in: false,
            });
            return 'verification' in made ? null : this.#begin(made);
        },
        registration: () => this.#data('GET', '/auth/registration', { signed_in: false }),
        login: async (login) => {
            return this.#begin(await this.#data('POST', '/auth/login', { json: login, signed_in: false }));
        },
        logout: async (everywhere = false) => {
            const refresh_token = this.login.refresh_token;
            this.login.end();
            if (refresh_token === null)
                return true;
            try {
                const json = { refresh_token, everywhere };
                await this.#data('POST', '/auth/logout', { json, signed_in: false, keepalive: true });
                return true;
            }
            catch (error) {
                return error instanceof ApiError && error.status === 401;
            }
        },
        me: () => this.#data('GET', '/auth/me'),
        changePassword: (current_password, new_password) => this.#data('PUT', '/auth/password', { json: { current_password, new_password } }),
        requestPasswordReset: (email) => this.#data('POST', '/auth/password-reset', { json: { email }, signed_in: false }),
        confirmPasswordReset: (token, new_password) => this.#data('POST', '/auth/password-reset/confirm', {
            json: { token, new_password },
            signed_in: false,
        }),
        ticket: () => this.#data('POST', '/auth/tickets'),
    };
    devices = {
        list: (query = {}) => this.#page('/auth/sessions', query),
        rename: (id, name) => this.#data('PATCH', path `/auth/sessions/${id}`, { json: { name } }),
        revoke: (id) => this.#data('DELETE', path `/auth/sessions/${id}`),
        revokeOthers: () => this.#data('DELETE', '/auth/sessions'),
    };
    totp = {
        setUp: (password) => this.#data('POST', '/auth/totp', { json: { password } }),
        confirm: (code) => this.#data('POST', '/auth/totp/confirm', { json: { code } }),
        remove: (password, code) => this.#data('POST', '/auth/totp/remove', { json: { password, code } }),
    };
    tokens = {
        list: (query = {}) => this.#page('/auth/tokens', query),
        create: (token) => this.#data('POST', '/auth/tokens', { json: token }),
        revoke: (id) => this.#data('DELETE', path `/auth/tokens/${id}`),
    };
    tenant = {
        mine: (query = {}) => this.#page('/auth/tenants', query),
        get: () => this.#tagged('GET', '/tenant'),
        rename: (name) => this.#tagged('PATCH', '/tenant', { json: { name } }),
        delete: (password) => this.#data('DELETE', '/tenant', { json: { password }, if_match: null }),
        members: (query = {}) => this.#page('/tenant/members', query),
        changeRole: (user, role) => this.#data('PATCH', path `/tenant/members/${user}`, { json: { role } }),
        removeMember: (user) => this.#data('DELETE', path `/tenant/members/${user}`),
        invitations: (query = {}) => this.#page('/tenant/invitations', query),
        invite: (email, role) => this.#data('POST', '/tenant/invitations', { json: { email, role } }),
        withdrawInvitation: (id) => this.#data('DELETE', path `/tenant/invitations/${id}`),
        acceptInvitation: (token) => this.#data('POST', '/auth/invitations/accept', { json: { token } }),
        sessions: (query = {}) => this.#page('/tenant/sessions', { ...query }),
        transferSession: (id, user_id) => this.#data('POST', path `/tenant/sessions/${id}/transfer`, { json: { user_id } }),
        deleteSession: (id) => this.#data('DELETE', path `/tenant/sessions/${id}`),
        conversations: (query = {}) => this.#page('/tenant/conversations', { ...query }),
        transferConversation: (id, user_id) => this.#data('POST', path `/tenant/conversations/${id}/transfer`, { json: { user_id } }),
        deleteConversation: (id) => this.#data('DELETE', path `/tenant/conversations/${id}`),
    };
    sessions = {
        create: (session) => this.#data('POST', '/sessions', { json: session }),
        list: (query = {}) => this.#page('/sessions', query),
        get: (id) => this.#tagged('GET', path `/sessions/${id}`),
        update: (id, change) => this.#tagged('PATCH', path `/sessions/${id}`, { json: change }),
        delete: (id) => this.#data('DELETE', path `/sessions/${id}`),
        restore: (id) => this.#data('GET', path `/sessions/${id}/restore`),
        part: (id, part) => this.#tagged('GET', path `/sessions/${id}/${part}`),
        replacePart: (id, part, value) => this.#tagged('PUT', path `/sessions/${id}/${part}`, { json: value }),
        mergePart: (id, part, patch) => this.#tagged('PATCH', path `/sessions/${id}/${part}`, { json: patch }),
    };
    clientState = {
        list: (id) => this.#data('GET', path `/sessions/${id}/state`),
        get: (id, key, version) => this.#bytes(segment `/sessions/${id}/state/${key}`, version === undefined ? undefined : { version }),
        put: (id, key, content) => {
            const current = (answer) => answer.arrayBuffer();
            return this.#tagged('PUT', segment `/sessions/${id}/state/${key}`, { body: content, current });
        },
        delete: (id, key) => this.#data('DELETE', segment `/sessions/${id}/state/${key}`),
        batch: (id, batch) => this.#data('POST', path `/sessions/${id}/state:batch`, { json: batch }),
    };
    files = {
        list: (id, query = {}) => this.#page(path `/sessions/${id}/files`, query),
        read: (id, file, version) => this.#bytes(path `/sessions/${id}/files/${file}`, version === undefined ? undefined : { version }),
        versions: (id, file) => this.#data('GET', path `/sessions/${id}/files/${file}`, { query: { versions: '' } }),
        write: (id, file, content, expecting) => {
            const options = {
                body: content,
                if_match: null,
                current: (answer) => answer.arrayBuffer(),
            };
            if (expecting === 'absent')
                options.headers = { 'If-None-Match': '*' };
            else if (expecting !== 'anything')
                options.if_match = expecting.etag;
            return this.#tagged('PUT', path `/sessions/${id}/files/${file}`, options);
        },
        delete: (id, file, recursive = false) => this.#data('DELETE', path `/sessions/${id}/files/${file}`, {
            if_match: null,
            ...(recursive ? { query: { recursive } } : {}),
        }),
        move: (id, relocation) => this.#data('POST', path `/sessions/${id}/files:move`, { json: relocation }),
        copy: (id, relocation) => this.#data('POST', path `/sessions/${id}/files:copy`, { json: relocation }),
        createDirectory: (id, directory) => this.#data('POST', path `/sessions/${id}/files:mkdir`, { json: { path: directory } }),
    };
    drafts = {
        list: (id) => this.#data('GET', path `/sessions/${id}/drafts`),
        get: async (id, file) => {
            try {
                return await this.#data('GET', path `/sessions/${id}/drafts/${file}`);
            }
            catch (error) {
                return absent(error, null);
            }
        },
        save: (id, file, draft, keepalive = false) => this.#data('PUT', path `/sessions/${id}/drafts/${file}`, {
            json: draft,
            if_match: null,
            keepalive,
        }),
        delete: async (id, file) => {
            try {
                await this.#data('DELETE', path `/sessions/${id}/drafts/${file}`, { if_match: null });
            }
            catch (error) {
                absent(error, undefined);
            }
        },
    };
    conversations = {
        create: (conversation) => this.#data('POST', '/conversations', { json: conversation }),
        list: (query = {}) => this.#page('/conversations', query),
        get: (id) => this.#tagged('GET', path `/conversations/${id}`),
        rename: (id, title) => this.#tagged('PATCH', path `/conversations/${id}`, { json: { title } }),
        delete: (id) => this.#data('DELETE', path `/conversations/${id}`),
        createMessage: (id, message) => this.#data('POST', path `/conversations/${id}/messages`, { json: message }),
        listMessages: (id, query = {}) => this.#page(path `/conversations/${id}/messages`, query),
    };
    agents = {
        create: (agent) => this.#data('POST', '/agents', { json: agent }),
        list: (query = {}) => this.#page('/agents', query),
        get: (id) => this.#tagged('GET', path `/agents/${id}`),
        update: (id, change) => this.#tagged('PATCH', path `/agents/${id}`, { json: change }),
        delete: (id) => this.#data('DELETE', path `/agents/${id}`),
    };
    settings = {
        list: () => this.#data('GET', '/settings'),
        get: (key, scope) => this.#tagged('GET', segment `/settings/${key}`, scoped(scope)),
        put: (key, value, scope) => this.#tagged('PUT', segment `/settings/${key}`, { json: { value }, ...scoped(scope) }),
        delete: (key, scope) => this.#data('DELETE', segment `/settings/${key}`, scoped(scope)),
    };
    audit(query = {}) {
        return this.#page('/audit', query);
    }
    #begin(signed_in) {
        this.login.begin(signed_in);
        return signed_in.user;
    }
    async #data(method, path, options) {
        return (await this.#http.request(method, path, options)).data;
    }
    async #tagged(method, path, options) {
        const answer = await this.#http.request(method, path, options);
        return { value: answer.data, etag: answer.etag ?? '' };
    }
    async #page(path, query) {
        const answer = await this.#http.request('GET', path, { query: query });
        return { items: answer.data, next_cursor: answer.next_cursor };
    }
    async #bytes(path, query) {
        const answer = await this.#http.raw('GET', path, query === undefined ? {} : { query });
        return { value: await answer.arrayBuffer(), etag: answer.headers.get('ETag') ?? '' };
    }
}
export async function all(list, most = 10_000) {
    const items = [];
    let cursor = null;
    do {
        const page = await list(cursor === null ? { limit: 200 } : { limit: 200, cursor });
        items.push(...page.items);
        cursor = page.next_cursor;
    } while (cursor !== null && items.length < most);
    return { items, is_complete: cursor === null };
}
function segment(strings, ...values) {
    return strings.reduce((text, next, at) => text + encodeURIComponent(values[at - 1] ?? '') + next);
}
function scoped(scope) {
    return scope === undefined ? {} : { query: { scope } };
}
function absent(error, otherwise) {
    if (error instanceof ApiError && error.status === 404)
        return otherwise;
    throw error;
}
