/**
 * Errors of the client:
 *
 * - {@link ApiError}: the server has refused.
 * - {@link ConflictError}: the resource has changed since it was read; has the present state.
 * - {@link NetworkError}: there was no response, so the outcome is unknown.
 * - {@link SignedOutError}: there is no login.
 */

import type { ErrorBody, FieldFault } from './types.js';

/** A refusal of the server. `message` is for people, `code` for programs. */
export class ApiError extends Error {
  readonly status: number;
  readonly code: string;
  /** Id of the request in the server's log. */
  readonly request_id: string | null;
  /** Invalid fields of the request. */
  readonly fields: readonly FieldFault[];
  /** Seconds until the next attempt, if the server has sent it. */
  readonly retry_after: number | null;

  constructor(status: number, body: Partial<ErrorBody>, retry_after: number | null = null) {
    super(body.message ?? `The server responded with status ${status}.`);
    this.name = 'ApiError';
    this.status = status;
    this.code = body.code ?? 'UNKNOWN';
    this.request_id = body.request_id ?? null;
    this.fields = body.fields ?? [];
    this.retry_after = retry_after;
  }
}

/** The present state, with the entity tag for the next attempt. */
export interface Current<T> {
  value: T;
  etag: string;
}

/** 412: the resource was changed by another client. Nothing was written. */
export class ConflictError<T = unknown> extends ApiError {
  /** `null` if the resource was deleted. */
  readonly current: Current<T> | null;

  constructor(refusal: ApiError, current: Current<T> | null) {
    const { code, message, fields } = refusal;
    super(refusal.status, {
      code,
      message,
      fields: [...fields],
      request_id: refusal.request_id ?? '',
    });
    this.name = 'ConflictError';
    this.current = current;
  }
}

/** There was no response from the server. */
export class NetworkError extends Error {
  constructor(cause: unknown) {
    super('The server cannot be reached.', { cause });
    this.name = 'NetworkError';
  }
}

/** There is no login. */
export class SignedOutError extends Error {
  constructor() {
    super('Sign in to do this.');
    this.name = 'SignedOutError';
  }
}
