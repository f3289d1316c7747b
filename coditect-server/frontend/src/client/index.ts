/**
 * Client of the v5 API: {@link Client} for HTTP, {@link SessionSocket} for an open session. It only
 * needs `fetch`, `WebSocket` and storage of a browser.
 */

export { Client, all, type Expecting, type PageOf, type Paging, type Tagged } from './client.js';
export { browser, type Channel, type Environment, type Keep } from './environment.js';
export { ApiError, ConflictError, NetworkError, SignedOutError, type Current } from './error.js';
export { LOGIN_KEY, type LoginChange } from './login.js';
export { OutboxError } from './outbox.js';
export { apply, compose, difference, isObject, isSame } from './patch.js';
export { SessionSocket, type Cause, type Handlers, type SocketState } from './socket.js';
export type * from './types.js';
