/**
 * The API, call by call. Paths, methods and shapes are defined only here; `http.ts` sends requests,
 * `login.ts` provides tokens.
 */

import { browser, type Environment } from './environment.js';
import { ApiError } from './error.js';
import { Http, path, type Answer, type Options, type Query } from './http.js';
import { Login } from './login.js';
import type * as t from './types.js';

/** A value with the entity tag that identifies its version. */
export interface Tagged<T> {
  value: T;
  etag: string;
}

export interface PageOf<T> {
  items: T[];
  next_cursor: string | null;
}

export interface Paging {
  limit?: number;
  cursor?: string;
}

/** Precondition of a write to a file. */
export type Expecting = { etag: string } | 'absent' | 'anything';

export class Client {
  readonly env: Environment;
  readonly login: Login;
  readonly #http: Http;

  constructor(env: Environment = browser()) {
    this.env = env;
    this.#http = new Http(env);
    const exchange = (refresh_token: string) =>
      this.#data<t.Tokens>('POST', '/auth/refresh', { json: { refresh_token }, signed_in: false });
    this.login = new Login(env, exchange);
    this.#http.withToken(this.login);
    this.login.onChange(() => this.#http.clearEtags());
  }

  /** Detaches this tab from the login, which stays. */
  close(): void {
    this.login.close();
  }

  health(): Promise<t.Health> {
    return this.#data('GET', '/health', { signed_in: false });
  }

  readonly auth = {
    /**
     * Creates an account and signs in; or returns `null` after the server has mailed a token to
     * pass as `verification`.
     */
    register: async (registration: t.Registration): Promise<t.User | null> => {
      const json = registration;
      const made = await this.#data<t.SignedIn | t.VerificationSent>('POST', '/auth/register', {
        json,
        signed_in: false,
      });
      return 'verification' in made ? null : this.#begin(made);
    },
    /** Gets the registration mode. */
    registration: (): Promise<t.RegistrationSettings> =>
      this.#data('GET', '/auth/registration', { signed_in: false }),
    /** @throws {ApiError} `SECOND_FACTOR_REQUIRED`: call again with `code`. */
    login: async (login: t.Login): Promise<t.User> => {
      return this.#begin(
        await this.#data<t.SignedIn>('POST', '/auth/login', { json: login, signed_in: false }),
      );
    },
    /**
     * Ends the login in all tabs of this browser at once. Returns whether the server confirmed it;
     * if not, the login expires there when it is not used.
     */
    logout: async (everywhere = false): Promise<boolean> => {
      const refresh_token = this.login.refresh_token;
      this.login.end();
      if (refresh_token === null) return true;
      try {
        const json = { refresh_token, everywhere };
        await this.#data('POST', '/auth/logout', { json, signed_in: false, keepalive: true });
        return true;
      } catch (error) {
        // The login had already ended.
        return error instanceof ApiError && error.status === 401;
      }
    },
    me: (): Promise<t.Me> => this.#data('GET', '/auth/me'),
    changePassword: (current_password: string, new_password: string): Promise<void> =>
      this.#data('PUT', '/auth/password', { json: { current_password, new_password } }),
    requestPasswordReset: (email: string): Promise<void> =>
      this.#data('POST', '/auth/password-reset', { json: { email }, signed_in: false }),
    confirmPasswordReset: (token: string, new_password: string): Promise<void> =>
      this.#data('POST', '/auth/password-reset/confirm', {
        json: { token, new_password },
        signed_in: false,
      }),
    ticket: (): Promise<t.Ticket> => this.#data('POST', '/auth/tickets'),
  };

  readonly devices = {
    list: (query: Paging = {}): Promise<PageOf<t.Device>> => this.#page('/auth/sessions', query),
    rename: (id: t.Uuid, name: string | null): Promise<t.Device> =>
      this.#data('PATCH', path`/auth/sessions/${id}`, { json: { name } }),
    revoke: (id: t.Uuid): Promise<void> => this.#data('DELETE', path`/auth/sessions/${id}`),
    revokeOthers: (): Promise<{ ended: number }> => this.#data('DELETE', '/auth/sessions'),
  };

  readonly totp = {
    setUp: (password: string): Promise<t.FactorBegun> =>
      this.#data('POST', '/auth/totp', { json: { password } }),
    confirm: (code: string): Promise<t.FactorConfirmed> =>
      this.#data('POST', '/auth/totp/confirm', { json: { code } }),
    remove: (password: string, code?: string): Promise<void> =>
      this.#data('POST', '/auth/totp/remove', { json: { password, code } }),
  };

  readonly tokens = {
    list: (query: Paging = {}): Promise<PageOf<t.PersonalToken>> =>
      this.#page('/auth/tokens', query),
    create: (token: t.NewPersonalToken): Promise<t.CreatedPersonalToken> =>
      this.#data('POST', '/auth/tokens', { json: token }),
    revoke: (id: t.Uuid): Promise<void> => this.#data('DELETE', path`/auth/tokens/${id}`),
  };

  readonly tenant = {
    mine: (query: Paging = {}): Promise<PageOf<t.MyTenant>> => this.#page('/auth/tenants', query),
    get: (): Promise<Tagged<t.Tenant>> => this.#tagged('GET', '/tenant'),
    rename: (name: string): Promise<Tagged<t.Tenant>> =>
      this.#tagged('PATCH', '/tenant', { json: { name } }),
    /** Deletes everything in the tenant and signs all users out. */
    delete: (password: string): Promise<void> =>
      this.#data('DELETE', '/tenant', { json: { password }, if_match: null }),
    members: (query: Paging = {}): Promise<PageOf<t.Member>> =>
      this.#page('/tenant/members', query),
    changeRole: (user: t.Uuid, role: t.Role): Promise<t.Joined> =>
      this.#data('PATCH', path`/tenant/members/${user}`, { json: { role } }),
    removeMember: (user: t.Uuid): Promise<void> =>
      this.#data('DELETE', path`/tenant/members/${user}`),
    invitations: (query: Paging = {}): Promise<PageOf<t.Invitation>> =>
      this.#page('/tenant/invitations', query),
    invite: (email: string, role: t.Role): Promise<t.CreatedInvitation> =>
      this.#data('POST', '/tenant/invitations', { json: { email, role } }),
    withdrawInvitation: (id: t.Uuid): Promise<void> =>
      this.#data('DELETE', path`/tenant/invitations/${id}`),
    acceptInvitation: (token: string): Promise<t.Joined> =>
      this.#data('POST', '/auth/invitations/accept', { json: { token } }),
    /** Sessions of all users. Sessions of former members can be transferred or deleted. */
    sessions: (query: Paging & t.HoldingsQuery = {}): Promise<PageOf<t.TenantSession>> =>
      this.#page('/tenant/sessions', { ...query }),
    transferSession: (id: t.Uuid, user_id: t.Uuid): Promise<t.TenantSession> =>
      this.#data('POST', path`/tenant/sessions/${id}/transfer`, { json: { user_id } }),
    deleteSession: (id: t.Uuid): Promise<void> =>
      this.#data('DELETE', path`/tenant/sessions/${id}`),
    conversations: (query: Paging & t.HoldingsQuery = {}): Promise<PageOf<t.TenantConversation>> =>
      this.#page('/tenant/conversations', { ...query }),
    transferConversation: (id: t.Uuid, user_id: t.Uuid): Promise<t.TenantConversation> =>
      this.#data('POST', path`/tenant/conversations/${id}/transfer`, { json: { user_id } }),
    deleteConversation: (id: t.Uuid): Promise<void> =>
      this.#data('DELETE', path`/tenant/conversations/${id}`),
  };

  readonly sessions = {
    create: (session: t.NewSession): Promise<t.Session> =>
      this.#data('POST', '/sessions', { json: session }),
    list: (
      query: Paging & { type?: t.SessionType; workspace_path?: string } = {},
    ): Promise<PageOf<t.Session>> => this.#page('/sessions', query),
    get: (id: t.Uuid): Promise<Tagged<t.Session>> => this.#tagged('GET', path`/sessions/${id}`),
    update: (id: t.Uuid, change: t.SessionChange): Promise<Tagged<t.Session>> =>
      this.#tagged('PATCH', path`/sessions/${id}`, { json: change }),
    delete: (id: t.Uuid): Promise<void> => this.#data('DELETE', path`/sessions/${id}`),
    restore: (id: t.Uuid): Promise<t.Restored> => this.#data('GET', path`/sessions/${id}/restore`),
    part: <P extends t.Part>(id: t.Uuid, part: P): Promise<Tagged<t.Parts[P]>> =>
      this.#tagged('GET', path`/sessions/${id}/${part}`),
    replacePart: <P extends t.Part>(
      id: t.Uuid,
      part: P,
      value: t.Parts[P],
    ): Promise<Tagged<t.Parts[P]>> =>
      this.#tagged('PUT', path`/sessions/${id}/${part}`, { json: value }),
    mergePart: <P extends t.Part>(
      id: t.Uuid,
      part: P,
      patch: t.JsonObject,
    ): Promise<Tagged<t.Parts[P]>> =>
      this.#tagged('PATCH', path`/sessions/${id}/${part}`, { json: patch }),
  };

  /** Client state: bytes that a client stores with a session. */
  readonly clientState = {
    list: (id: t.Uuid): Promise<t.ClientStateKey[]> =>
      this.#data('GET', path`/sessions/${id}/state`),
    get: (id: t.Uuid, key: string, version?: number): Promise<Tagged<ArrayBuffer>> =>
      this.#bytes(
        segment`/sessions/${id}/state/${key}`,
        version === undefined ? undefined : { version },
      ),
    put: (id: t.Uuid, key: string, content: BodyInit): Promise<Tagged<t.ClientStateVersion>> => {
      const current = (answer: Response) => answer.arrayBuffer();
      return this.#tagged('PUT', segment`/sessions/${id}/state/${key}`, { body: content, current });
    },
    delete: (id: t.Uuid, key: string): Promise<void> =>
      this.#data('DELETE', segment`/sessions/${id}/state/${key}`),
    batch: (id: t.Uuid, batch: t.ClientStateBatch): Promise<t.ClientStateBatchResult> =>
      this.#data('POST', path`/sessions/${id}/state:batch`, { json: batch }),
  };

  readonly files = {
    list: (
      id: t.Uuid,
      query: Paging & { path?: string; recursive?: boolean } = {},
    ): Promise<PageOf<t.FileEntry>> => this.#page(path`/sessions/${id}/files`, query),
    read: (id: t.Uuid, file: string, version?: number): Promise<Tagged<ArrayBuffer>> =>
      this.#bytes(
        path`/sessions/${id}/files/${file}`,
        version === undefined ? undefined : { version },
      ),
    versions: (id: t.Uuid, file: string): Promise<t.FileVersion[]> =>
      this.#data('GET', path`/sessions/${id}/files/${file}`, { query: { versions: '' } }),
    /** @throws {ConflictError} with the present content, if the precondition does not hold. */
    write: (
      id: t.Uuid,
      file: string,
      content: BodyInit,
      expecting: Expecting,
    ): Promise<Tagged<t.FileEntry>> => {
      const options: Options = {
        body: content,
        if_match: null,
        current: (answer) => answer.arrayBuffer(),
      };
      if (expecting === 'absent') options.headers = { 'If-None-Match': '*' };
      else if (expecting !== 'anything') options.if_match = expecting.etag;
      return this.#tagged('PUT', path`/sessions/${id}/files/${file}`, options);
    },
    delete: (id: t.Uuid, file: string, recursive = false): Promise<void> =>
      this.#data('DELETE', path`/sessions/${id}/files/${file}`, {
        if_match: null,
        ...(recursive ? { query: { recursive } } : {}),
      }),
    move: (id: t.Uuid, relocation: t.Relocation): Promise<t.FileEntry> =>
      this.#data('POST', path`/sessions/${id}/files:move`, { json: relocation }),
    copy: (id: t.Uuid, relocation: t.Relocation): Promise<t.FileEntry> =>
      this.#data('POST', path`/sessions/${id}/files:copy`, { json: relocation }),
    createDirectory: (id: t.Uuid, directory: string): Promise<t.FileEntry> =>
      this.#data('POST', path`/sessions/${id}/files:mkdir`, { json: { path: directory } }),
  };

  readonly drafts = {
    list: (id: t.Uuid): Promise<t.DraftEntry[]> => this.#data('GET', path`/sessions/${id}/drafts`),
    /** Returns `null` if there is none. */
    get: async (id: t.Uuid, file: string): Promise<t.Draft | null> => {
      try {
        return await this.#data<t.Draft>('GET', path`/sessions/${id}/drafts/${file}`);
      } catch (error) {
        return absent(error, null);
      }
    },
    save: (id: t.Uuid, file: string, draft: t.NewDraft, keepalive = false): Promise<t.DraftEntry> =>
      this.#data('PUT', path`/sessions/${id}/drafts/${file}`, {
        json: draft,
        if_match: null,
        keepalive,
      }),
    /** Succeeds also if there was none. */
    delete: async (id: t.Uuid, file: string): Promise<void> => {
      try {
        await this.#data('DELETE', path`/sessions/${id}/drafts/${file}`, { if_match: null });
      } catch (error) {
        absent(error, undefined);
      }
    },
  };

  readonly conversations = {
    create: (conversation: t.NewConversation): Promise<t.Conversation> =>
      this.#data('POST', '/conversations', { json: conversation }),
    list: (query: Paging & { session_id?: t.Uuid } = {}): Promise<PageOf<t.Conversation>> =>
      this.#page('/conversations', query),
    get: (id: t.Uuid): Promise<Tagged<t.Conversation>> =>
      this.#tagged('GET', path`/conversations/${id}`),
    rename: (id: t.Uuid, title: string): Promise<Tagged<t.Conversation>> =>
      this.#tagged('PATCH', path`/conversations/${id}`, { json: { title } }),
    delete: (id: t.Uuid): Promise<void> => this.#data('DELETE', path`/conversations/${id}`),
    createMessage: (id: t.Uuid, message: t.NewMessage): Promise<t.Message> =>
      this.#data('POST', path`/conversations/${id}/messages`, { json: message }),
    listMessages: (
      id: t.Uuid,
      query: Paging & { order?: 'asc' | 'desc' } = {},
    ): Promise<PageOf<t.Message>> => this.#page(path`/conversations/${id}/messages`, query),
  };

  readonly agents = {
    create: (agent: t.NewAgent): Promise<t.Agent> => this.#data('POST', '/agents', { json: agent }),
    list: (query: Paging = {}): Promise<PageOf<t.Agent>> => this.#page('/agents', query),
    get: (id: t.Uuid): Promise<Tagged<t.Agent>> => this.#tagged('GET', path`/agents/${id}`),
    update: (id: t.Uuid, change: t.AgentChange): Promise<Tagged<t.Agent>> =>
      this.#tagged('PATCH', path`/agents/${id}`, { json: change }),
    delete: (id: t.Uuid): Promise<void> => this.#data('DELETE', path`/agents/${id}`),
  };

  readonly settings = {
    list: (): Promise<t.Setting[]> => this.#data('GET', '/settings'),
    get: (key: string, scope?: t.SettingScope): Promise<Tagged<t.Setting>> =>
      this.#tagged('GET', segment`/settings/${key}`, scoped(scope)),
    put: (key: string, value: t.Json, scope?: t.SettingScope): Promise<Tagged<t.Setting>> =>
      this.#tagged('PUT', segment`/settings/${key}`, { json: { value }, ...scoped(scope) }),
    delete: (key: string, scope?: t.SettingScope): Promise<void> =>
      this.#data('DELETE', segment`/settings/${key}`, scoped(scope)),
  };

  audit(
    query: Paging & {
      actor?: t.Uuid;
      action?: string;
      since?: t.Timestamp;
      until?: t.Timestamp;
    } = {},
  ): Promise<PageOf<t.AuditEntry>> {
    return this.#page('/audit', query);
  }

  #begin(signed_in: t.SignedIn): t.User {
    this.login.begin(signed_in);
    return signed_in.user;
  }

  async #data<T>(
    method: Parameters<Http['request']>[0],
    path: string,
    options?: Options,
  ): Promise<T> {
    return (await this.#http.request<T>(method, path, options)).data;
  }

  async #tagged<T>(
    method: Parameters<Http['request']>[0],
    path: string,
    options?: Options,
  ): Promise<Tagged<T>> {
    const answer: Answer<T> = await this.#http.request<T>(method, path, options);
    return { value: answer.data, etag: answer.etag ?? '' };
  }

  async #page<T>(path: string, query: Query | Paging): Promise<PageOf<T>> {
    const answer = await this.#http.request<T[]>('GET', path, { query: query as Query });
    return { items: answer.data, next_cursor: answer.next_cursor };
  }

  async #bytes(path: string, query?: Query): Promise<Tagged<ArrayBuffer>> {
    const answer = await this.#http.raw('GET', path, query === undefined ? {} : { query });
    return { value: await answer.arrayBuffer(), etag: answer.headers.get('ETag') ?? '' };
  }
}

/** Returns the items of all pages, up to about `most`. */
export async function all<T>(
  list: (paging: Paging) => Promise<PageOf<T>>,
  most = 10_000,
): Promise<{ items: T[]; is_complete: boolean }> {
  const items: T[] = [];
  let cursor: string | null = null;
  do {
    const page: PageOf<T> = await list(cursor === null ? { limit: 200 } : { limit: 200, cursor });
    items.push(...page.items);
    cursor = page.next_cursor;
  } while (cursor !== null && items.length < most);
  return { items, is_complete: cursor === null };
}

/** Like {@link path}, for keys that may contain a slash. */
function segment(strings: TemplateStringsArray, ...values: string[]): string {
  return strings.reduce((text, next, at) => text + encodeURIComponent(values[at - 1] ?? '') + next);
}

function scoped(scope: t.SettingScope | undefined): Options {
  return scope === undefined ? {} : { query: { scope } };
}

function absent<T>(error: unknown, otherwise: T): T {
  if (error instanceof ApiError && error.status === 404) return otherwise;
  throw error;
}
