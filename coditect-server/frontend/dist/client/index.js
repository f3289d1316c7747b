export { Client, all } from './client.js';
export { browser } from './environment.js';
export { ApiError, ConflictError, NetworkError, SignedOutError } from './error.js';
export { LOGIN_KEY } from './login.js';
export { OutboxError } from './outbox.js';
export { apply, compose, difference, isObject, isSame } from './patch.js';
export { SessionSocket } from './socket.js';
