/**
 * What goes over the wire, as the server writes it: the schemas of its OpenAPI document by hand.
 *
 * Nothing but types is in here, and nothing of the client is described anywhere else, so that types which
 * are generated from `/api/v5/openapi.json` can take this file's place. Requests are written in the
 * spelling of the answers, snake_case.
 */

export type Uuid = string;
/** RFC 3339, in UTC, with milliseconds. */
export type Timestamp = string;
/** SHA-256, in hexadecimal. */
export type Sha256 = string;

export type Json = null | boolean | number | string | Json[] | JsonObject;
export interface JsonObject {
  [member: string]: Json;
}

export interface Success<T> {
  success: true;
  data: T;
  /** Of lists only: leads to the next page, `null` on the last. */
  next_cursor?: string | null;
}

export interface FieldFault {
  field: string;
  message: string;
}

export interface ErrorBody {
  code: string;
  message: string;
  request_id: string;
  fields?: FieldFault[];
}

export interface Failure {
  success: false;
  error: ErrorBody;
}

// Identity

export type Role = 'owner' | 'admin' | 'member';

export interface User {
  id: Uuid;
  tenant_id: Uuid;
  email: string;
  first_name: string | null;
  last_name: string | null;
  created_at: Timestamp;
  updated_at: Timestamp;
}

export interface Tenant {
  id: Uuid;
  name: string;
  created_at: Timestamp;
  updated_at: Timestamp;
}

export interface Registration {
  email: string;
  password: string;
  first_name?: string;
  last_name?: string;
  /** The token of an invitation, which is accepted. */
  invitation?: string;
  /** The token of the mail that verifies the address. */
  verification?: string;
}

export interface VerificationSent {
  verification: 'sent';
}

export interface RegistrationSettings {
  mode: 'open' | 'invited' | 'closed';
  /** Whether a registration without an invitation is confirmed by mail. */
  verifies_email: boolean;
}

export interface Login {
  email: string;
  password: string;
  /** Of the second factor, once the server asks for it. */
  code?: string;
  active_tenant?: Uuid;
}

/** What is there without cookies, which this client has no use for. */
export interface Tokens {
  token: string;
  refresh_token: string;
  token_type: 'Bearer';
  /** Seconds from now on. */
  expires_in: number;
  tenant_id: Uuid;
}

export interface SignedIn extends Tokens {
  user: User;
}

export interface Me {
  user: User;
  tenant: Tenant;
  role: Role;
}

export interface Device {
  id: Uuid;
  /** For `If-Match`. */
  etag: string;
  name: string | null;
  /** Whether it is the one that asks. */
  current: boolean;
  tenant_id: Uuid;
  user_agent: string | null;
  ip: string | null;
  created_at: Timestamp;
  last_used_at: Timestamp;
  expires_at: Timestamp;
}

export interface FactorBegun {
  /** In Base32, to be typed in. */
  secret: string;
  /** To be shown as a QR code. */
  url: string;
}

export interface FactorConfirmed {
  recovery_codes: string[];
}

export interface NewPersonalToken {
  name: string;
  scopes: string[];
  expires_in_days?: number;
  /** Required unless the login is younger than ten minutes. */
  password?: string;
}

export interface PersonalToken {
  id: Uuid;
  /** For `If-Match`. */
  etag: string;
  name: string;
  scopes: string[];
  tenant_id: Uuid;
  created_at: Timestamp;
  last_used_at: Timestamp;
  expires_at: Timestamp;
}

export interface CreatedPersonalToken extends PersonalToken {
  /** Shown this once. */
  token: string;
}

export interface Ticket {
  ticket: string;
  /** Seconds. */
  expires_in: number;
}

// Tenants

export interface MyTenant extends Tenant {
  role: Role;
  /** Whether my own record is in it. */
  own: boolean;
}

export interface Member {
  user_id: Uuid;
  email: string;
  first_name: string | null;
  last_name: string | null;
  role: Role;
  joined_at: Timestamp;
}

export interface Invitation {
  id: Uuid;
  /** For `If-Match`. */
  etag: string;
  email: string;
  role: Role;
  /** Whether it gives the right to use the IDE. */
  ide: boolean;
  invited_by: Uuid;
  created_at: Timestamp;
  expires_at: Timestamp;
}

export interface CreatedInvitation extends Invitation {
  /** What whoever is invited accepts with; shown this once. */
  token: string;
}

export interface Joined {
  tenant_id: Uuid;
  role: Role;
}

/** Which of the sessions or conversations of a tenant's users. */
export interface HoldingsQuery {
  user?: Uuid;
  /** Those whose user is no member any more. */
  orphaned?: boolean;
}

export interface TenantSession {
  id: Uuid;
  name: string;
  type: SessionType;
  user_id: Uuid;
  orphaned: boolean;
  workspace_path: string | null;
  created_at: Timestamp;
  updated_at: Timestamp;
  last_accessed_at: Timestamp;
}

export interface TenantConversation {
  id: Uuid;
  title: string;
  session_id: Uuid | null;
  user_id: Uuid;
  orphaned: boolean;
  created_at: Timestamp;
  updated_at: Timestamp;
}

// Workspace sessions

export type SessionType = 'workspace' | 'ai-studio' | 'theia';

export interface Session {
  id: Uuid;
  name: string;
  type: SessionType;
  tenant_id: Uuid;
  user_id: Uuid;
  workspace_path: string | null;
  settings: JsonObject;
  conversation_id: Uuid | null;
  created_at: Timestamp;
  updated_at: Timestamp;
  last_accessed_at: Timestamp;
}

export interface NewSession {
  name: string;
  type?: SessionType;
  workspace_path?: string;
  settings?: JsonObject;
}

export interface SessionChange {
  name?: string;
  type?: SessionType;
  workspace_path?: string | null;
  settings?: JsonObject | null;
  conversation_id?: Uuid | null;
}

/** Lines and columns as the client counts them. */
export interface TextPosition {
  line: number;
  column: number;
}

export interface TextSelection {
  anchor: TextPosition;
  active: TextPosition;
}

export interface EditorTab {
  path: string;
  cursor: TextPosition;
  selections: TextSelection[];
  pinned: boolean;
  /** The client's own. */
  view_state: Json;
}

export interface EditorState {
  tabs: EditorTab[];
  active_tab: number | null;
  /** The client's own. */
  layout: Json;
}

export interface Terminal {
  title: string;
  cwd: string;
  /** Oldest first; the server keeps the newest thousand. */
  command_history: string[];
  environment_vars: Record<string, string>;
}

export interface TerminalState {
  active: string | null;
  terminals: Record<string, Terminal>;
}

export type SessionMemory = JsonObject;

export interface ClientStateKey {
  key: string;
  version: number;
}

export interface ClientStateSaved extends ClientStateKey {
  size: number;
  saved_at: Timestamp;
}

export interface ClientStateBatch {
  put?: { key: string; /** In Base64. */ content: string }[];
  delete?: string[];
}

export interface ClientStateBatchDone {
  saved: ClientStateKey[];
  deleted: string[];
}

export interface Restored {
  session: Session;
  editor_state: EditorState;
  terminal_state: TerminalState;
  active_files: string[];
  session_memory: SessionMemory;
  conversation_id: Uuid | null;
  client_state: ClientStateKey[];
}

// Files

export interface FileEntry {
  /** Without a leading slash. */
  path: string;
  kind: 'file' | 'directory';
  size: number;
  /** Of a directory there is none. */
  sha256: Sha256 | null;
  mtime: Timestamp;
  version: number;
}

export interface FileVersion {
  version: number;
  size: number;
  sha256: Sha256;
  saved_at: Timestamp;
}

export interface Relocation {
  from: string;
  to: string;
  overwrite?: boolean;
}

export interface NewDraft {
  content: string;
  /** What the text started from; `null` where there was no file. */
  base_etag: Sha256 | null;
}

export interface DraftEntry {
  path: string;
  base_etag: Sha256 | null;
  size: number;
  saved_at: Timestamp;
}

export interface Draft extends DraftEntry {
  content: string;
  /** What the file is by now; `null` where there is none. */
  current_etag: Sha256 | null;
}

// Conversations, agents, settings, audit

export interface Conversation {
  id: Uuid;
  title: string;
  session_id: Uuid | null;
  user_id: Uuid;
  created_at: Timestamp;
  updated_at: Timestamp;
}

export interface NewConversation {
  title?: string;
  session_id?: Uuid;
}

export type Author = { type: 'user'; id: Uuid } | { type: 'agent'; id: Uuid } | { type: 'system' };

export interface Message {
  id: Uuid;
  conversation_id: Uuid;
  author: Author;
  content: string;
  metadata: JsonObject;
  created_at: Timestamp;
}

export interface NewMessage {
  content: string;
  agent_id?: Uuid;
  metadata?: JsonObject;
}

export interface Agent {
  id: Uuid;
  name: string;
  description: string;
  settings: JsonObject;
  created_at: Timestamp;
  updated_at: Timestamp;
}

export interface NewAgent {
  name: string;
  description?: string;
  settings?: JsonObject;
}

export interface AgentChange {
  name?: string;
  description?: string | null;
  settings?: JsonObject | null;
}

export type SettingScope = 'user' | 'tenant';

export interface Setting {
  key: string;
  value: Json;
  scope: SettingScope;
  updated_at: Timestamp;
}

export interface AuditEntry {
  actor: Uuid | null;
  action: string;
  target: string | null;
  details: Json;
  ip: string | null;
  at: Timestamp;
}

export interface Health {
  status: 'ok';
  version: string;
  engine: string;
  uptime_seconds: number;
}

// The socket

/** The parts of a session that go over its socket. */
export interface Parts {
  editor: EditorState;
  terminal: TerminalState;
  memory: SessionMemory;
}
export type Part = keyof Parts;

export type ServerFrame =
  | { type: 'restore'; client: string; seq: number; versions: Record<Part, number>; data: Restored }
  | { type: 'ack'; seq: number; part: Part; version: number }
  | { [P in Part]: { type: 'changed'; part: P; version: number; data: Parts[P] } }[Part]
  | { type: 'error'; seq?: number | null; error: ErrorBody }
  | { type: 'expiring'; expires_at: Timestamp }
  | { type: 'authenticated'; expires_at: Timestamp | null }
  | { type: 'pong' };

export type ClientFrame =
  | { type: `${Part}.update`; seq: number; data: JsonObject }
  | { type: 'authenticate'; token: string }
  | { type: 'ping' };
