/**
 * Updates that the server has not acknowledged yet, in order.
 *
 * Invariants:
 *
 * - Sequence numbers increase, and an update keeps its number and content once it has one: the
 *   server may already have it, and recognises it by the number.
 * - An unsent update is merged with the next one of the same part. So each part has one update in
 *   flight and usually one waiting, however fast the input and however long the server is away.
 * - The size is limited. An update that does not fit is refused at once and never dropped later.
 */

import { compose } from './patch.js';
import type { JsonObject, Part } from './types.js';

export interface Update {
  part: Part;
  patch: JsonObject;
  /** `null` until it is sent for the first time. */
  seq: number | null;
}

interface Entry extends Update {
  /** Whether it was sent over the present connection. */
  is_sent: boolean;
}

/**
 * Maximum number of updates, and of bytes per update; the server accepts messages of at most 256
 * KiB.
 */
const MOST = 200;
const MOST_BYTES = 250 * 1024;

/** The update is too large, or there are too many. It was not added. */
export class OutboxError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'OutboxError';
  }
}

export class Outbox {
  #entries: Entry[] = [];
  /** Last assigned number. */
  #last = 0;

  /** Starts with updates stored earlier. */
  constructor(kept: readonly Update[] = []) {
    this.#entries = kept.map(({ part, patch, seq }) => ({ part, patch, seq, is_sent: false }));
  }

  get size(): number {
    return this.#entries.length;
  }

  /** Returns the updates to store across a reload. */
  updates(): Update[] {
    return this.#entries.map(({ part, patch, seq }) => ({ part, patch, seq }));
  }

  /** Returns the unacknowledged patches of a part, in order. */
  pending(part: Part): JsonObject[] {
    return this.#entries.filter((entry) => entry.part === part).map((entry) => entry.patch);
  }

  /** @throws {OutboxError} */
  add(part: Part, patch: JsonObject): void {
    const waiting = this.#entries.findLast((entry) => entry.part === part);
    const merged = waiting?.seq === null ? compose(waiting.patch, patch) : undefined;
    if (waiting !== undefined && merged !== undefined && bytes(merged) <= MOST_BYTES) {
      waiting.patch = merged;
      return;
    }
    if (bytes(patch) > MOST_BYTES) throw new OutboxError('The change is too large for one update.');
    if (this.#entries.length >= MOST)
      throw new OutboxError('Too many updates are waiting for the server.');
    this.#entries.push({ part, patch, seq: null, is_sent: false });
  }

  /**
   * A connection is established, and the server has all updates up to `durable`. Under another
   * client id (`is_same_client` is false) it does not know the assigned numbers.
   */
  restore(durable: number, is_same_client: boolean): void {
    if (is_same_client) {
      this.#entries = this.#entries.filter((entry) => entry.seq === null || entry.seq > durable);
    }
    this.#last = durable;
    for (const entry of this.#entries) {
      entry.is_sent = false;
      if (!is_same_client) entry.seq = null;
      this.#last = Math.max(this.#last, entry.seq ?? 0);
    }
  }

  /**
   * Returns the updates that may be sent now, in order and numbered; with `all`, also the ones
   * that should wait.
   */
  take(all = false): (Update & { seq: number })[] {
    const taken: (Update & { seq: number })[] = [];
    const on_their_way = new Set(
      this.#entries.filter((entry) => entry.is_sent).map((entry) => entry.part),
    );
    for (const entry of this.#entries) {
      if (entry.is_sent) continue;
      if (entry.seq === null) {
        if (on_their_way.has(entry.part) && !all) continue;
        this.#last += 1;
        entry.seq = this.#last;
      }
      entry.is_sent = true;
      on_their_way.add(entry.part);
      taken.push({ part: entry.part, patch: entry.patch, seq: entry.seq });
    }
    return taken;
  }

  /** Removes an update that the server has acknowledged or refused. */
  settle(seq: number): Update | undefined {
    const at = this.#entries.findIndex((entry) => entry.seq === seq);
    return at < 0 ? undefined : this.#entries.splice(at, 1)[0];
  }
}

function bytes(patch: JsonObject): number {
  return new TextEncoder().encode(JSON.stringify(patch)).length;
}
