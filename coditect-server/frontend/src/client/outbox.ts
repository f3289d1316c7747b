/**
 * The updates that a tab has made and the server has not acknowledged, in the order they were made.
 *
 * What stays true:
 *
 * - Sequence numbers go up, and an update keeps its number and its content once it has one: the server may
 *   have it already, and knows by the number that it is the same.
 * - What was not sent yet is merged with what comes after it on the same part. So a part has one update on
 *   its way and mostly one that waits, however fast somebody types or however long the server is away.
 * - It is bounded. What does not fit is refused at once, not dropped later.
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
  /** Whether it is on its way over the present connection. */
  is_sent: boolean;
}

/** The most updates that wait, and the most bytes in one: the server takes frames of at most 256 KiB. */
const MOST = 200;
const MOST_BYTES = 250 * 1024;

/** The update is too large, or too many wait already. It was not taken. */
export class OutboxError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'OutboxError';
  }
}

export class Outbox {
  #entries: Entry[] = [];
  /** The highest number that was given. */
  #last = 0;

  /** With what was kept of an earlier one. */
  constructor(kept: readonly Update[] = []) {
    this.#entries = kept.map(({ part, patch, seq }) => ({ part, patch, seq, is_sent: false }));
  }

  get size(): number {
    return this.#entries.length;
  }

  /** What is to be kept, should the tab be reloaded. */
  updates(): Update[] {
    return this.#entries.map(({ part, patch, seq }) => ({ part, patch, seq }));
  }

  /** The patches of a part that are not acknowledged, in order. */
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
    if (bytes(patch) > MOST_BYTES) throw new OutboxError('This is more than one update can carry.');
    if (this.#entries.length >= MOST) throw new OutboxError('Too many updates wait for the server.');
    this.#entries.push({ part, patch, seq: null, is_sent: false });
  }

  /**
   * A connection is there, and the server has all up to `durable`. Under another client id than before
   * (`is_same_client` is false) it knows none of the numbers that were given.
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

  /** What may be sent now, in order, each with its number; with `all`, what should wait as well. */
  take(all = false): (Update & { seq: number })[] {
    const taken: (Update & { seq: number })[] = [];
    const on_their_way = new Set(this.#entries.filter((entry) => entry.is_sent).map((entry) => entry.part));
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

  /** The server has the update, or will not have it: it is not kept any longer. */
  settle(seq: number): Update | undefined {
    const at = this.#entries.findIndex((entry) => entry.seq === seq);
    return at < 0 ? undefined : this.#entries.splice(at, 1)[0];
  }
}

function bytes(patch: JsonObject): number {
  return new TextEncoder().encode(JSON.stringify(patch)).length;
}
