/**
 * What goes wrong, each as one class that a caller can act on:
 *
 * - {@link ApiError}: the server has answered, and it was no.
 * - {@link ConflictError}: the thing was changed since it was seen; what is there now comes along.
 * - {@link NetworkError}: there was no answer, so nobody knows whether anything was done.
 * - {@link SignedOutError}: there is no login, or not any more.
 */

import type { ErrorBody, FieldFault } from './types.js';

/** The server's refusal. `message` is for a person, `code` for a program. */
export class ApiError extends Error {
  readonly status: number;
  readonly code: string;
  /** By which the server's log knows the request. */
  readonly request_id: string | null;
  /** Which fields of the request are wrong. */
  readonly fields: readonly FieldFault[];
  /** After how many seconds another attempt is welcome, where the server has said so. */
  readonly retry_after: number | null;

  constructor(status: number, body: Partial<ErrorBody>, retry_after: number | null = null) {
    super(body.message ?? `The server answered with status ${status}.`);
    this.name = 'ApiError';
    this.status = status;
    this.code = body.code ?? 'UNKNOWN';
    this.request_id = body.request_id ?? null;
    this.fields = body.fields ?? [];
    this.retry_after = retry_after;
  }
}

/** What is there now, with the tag that the next attempt must name. */
export interface Current<T> {
  value: T;
  etag: string;
}

/** 412: somebody was faster. Nothing was changed. */
export class ConflictError<T = unknown> extends ApiError {
  /** `null` where the thing is gone. */
  readonly current: Current<T> | null;

  constructor(refusal: ApiError, current: Current<T> | null) {
    const { code, message, fields } = refusal;
    super(refusal.status, { code, message, fields: [...fields], request_id: refusal.request_id ?? '' });
    this.name = 'ConflictError';
    this.current = current;
  }
}

/** No answer came: the network, or the server, is not there. */
export class NetworkError extends Error {
  constructor(cause: unknown) {
    super('The server cannot be reached.', { cause });
    this.name = 'NetworkError';
  }
}

/** Nobody is signed in. */
export class SignedOutError extends Error {
  constructor() {
    super('Sign in to do this.');
    this.name = 'SignedOutError';
  }
}
