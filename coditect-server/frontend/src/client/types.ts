/**
 * The wire format of the server: its OpenAPI schemas, written by hand.
 *
 * This file has only types, and describes nothing of the client itself, so that types generated
 * from `/api/v5/openapi.json` can replace it. Names are in snake_case.
 */

export type Uuid = string;
/** RFC 3339 in UTC with milliseconds. */
export type Timestamp = string;
/** SHA-256 in hexadecimal. */
export type Sha256 = string;

export type Json = null | boolean | number | string | Json[] | JsonObject;
export interface JsonObject {
  [member: string]: Json;
}

export interface Success<T> {
  success: true;
  data: T;
  /** Only for lists: cursor of the next page, `null` on the last one. */
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
  /** Token of an invitation to accept. */
  invitation?: string;
  /** Token from the mail that verifies the address. */
  verification?: string;
}

export interface VerificationSent {
  verification: 'sent';
}

export interface RegistrationSettings {
  mode: 'open' | 'invited' | 'closed';
  /** Whether a registration without an invitation is verified by mail. */
  verifies_email: boolean;
}

export interface Login {
  email: string;
  password: string;
  /** Code of the second factor, once the server asks for it. */
  code?: string;
  active_tenant?: Uuid;
}

/** Tokens in the body; this client does not use cookies. */
export interface Tokens {
  token: string;
  refresh_token: string;
  token_type: 'Bearer';
  /** Lifetime of the access token, in seconds. */
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
  /** Entity tag for `If-Match`. */
  etag: string;
  name: string | null;
  /** Whether it is this device. */
  current: boolean;
  tenant_id: Uuid;
  user_agent: string | null;
  ip: string | null;
  created_at: Timestamp;
  last_used_at: Timestamp;
  expires_at: Timestamp;
}

export interface FactorBegun {
  /** Secret in Base32, for typing it. */
  secret: string;
  /** `otpauth:` URL, for a QR code. */
  url: string;
}

export interface FactorConfirmed {
  recovery_codes: string[];
}

export interface NewPersonalToken {
  name: string;
  scopes: string[];
  expires_in_days?: number;
  /** Required unless the login is less than ten minutes old. */
  password?: string;
}

export interface PersonalToken {
  id: Uuid;
  /** Entity tag for `If-Match`. */
  etag: string;
  name: string;
  scopes: string[];
  tenant_id: Uuid;
  created_at: Timestamp;
  last_used_at: Timestamp;
  expires_at: Timestamp;
}

export interface CreatedPersonalToken extends PersonalToken {
  /** Returned once. */
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
  /** Whether it is the user's own tenant. */
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
  /** Entity tag for `If-Match`. */
  etag: string;
  email: string;
  role: Role;
  /** Whether it grants access to the IDE. */
  ide: boolean;
  invited_by: Uuid;
  created_at: Timestamp;
  expires_at: Timestamp;
}

export interface CreatedInvitation extends Invitation {
  /** Token that accepts the invitation; returned once. */
  token: string;
  /** Whether it is mailed to the address; if not, pass it on in another way. */
  mailed: boolean;
}

export interface Joined {
  tenant_id: Uuid;
  role: Role;
}

/** Filter of a tenant's sessions or conversations. */
export interface HoldingsQuery {
  user?: Uuid;
  /** Only those whose user is no longer a member. */
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

/** Line and column, counted as by the client. */
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
  /** Defined by the client. */
  view_state: Json;
}

export interface EditorState {
  tabs: EditorTab[];
  active_tab: number | null;
  /** Defined by the client. */
  layout: Json;
}

export interface Terminal {
  title: string;
  cwd: string;
  /** Oldest first; the server keeps the last thousand. */
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

export interface ClientStateVersion extends ClientStateKey {
  size: number;
  saved_at: Timestamp;
}

export interface ClientStateBatch {
  put?: { key: string; /** Base64. */ content: string }[];
  delete?: string[];
}

export interface ClientStateBatchResult {
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
  /** `null` for a directory. */
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
  /** Hash of the content that the text is based on; `null` without a file. */
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
  /** Hash of the present content; `null` without a file. */
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

// WebSocket

/** The parts of a session that are sent over its WebSocket. */
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
