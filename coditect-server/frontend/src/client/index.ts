/**
 * The client of the v5 API: {@link Client} for what is asked over HTTP, {@link SessionSocket} for a session
 * that is open. It needs a browser's `fetch`, `WebSocket` and storage, and nothing else.
 */

export { Client, all, type Expecting, type PageOf, type Paging, type Tagged } from './client.js';
export { browser, type Channel, type Environment, type Keep } from './environment.js';
export { ApiError, ConflictError, NetworkError, SignedOutError, type Current } from './error.js';
export { LOGIN_KEY, type LoginChange } from './login.js';
export { OutboxError } from './outbox.js';
export { apply, compose, difference, isObject, isSame } from './patch.js';
export { SessionSocket, type Cause, type Handlers, type SocketState } from './socket.js';
export type * from './types.js';
