import { compose } from './patch.js';
const MOST = 200;
const MOST_BYTES = 250 * 1024;
export class OutboxError extends Error {
    constructor(message) {
        super(message);
        this.name = 'OutboxError';
    }
}
export class Outbox {
    #entries = [];
    #last = 0;
    constructor(kept = []) {
        this.#entries = kept.map(({ part, patch, seq }) => ({ part, patch, seq, is_sent: false }));
    }
    get size() {
        return this.#entries.length;
    }
    updates() {
        return this.#entries.map(({ part, patch, seq }) => ({ part, patch, seq }));
    }
    pending(part) {
        return this.#entries.filter((entry) => entry.part === part).map((entry) => entry.patch);
    }
    add(part, patch) {
        const waiting = this.#entries.findLast((entry) => entry.part === part);
        const merged = waiting?.seq === null ? compose(waiting.patch, patch) : undefined;
        if (waiting !== undefined && merged !== undefined && bytes(merged) <= MOST_BYTES) {
            waiting.patch = merged;
            return;
        }
        if (bytes(patch) > MOST_BYTES)
            throw new OutboxError('The change is too large for one update.');
        if (this.#entries.length >= MOST)
            throw new OutboxError('Too many updates are waiting for the server.');
        this.#entries.push({ part, patch, seq: null, is_sent: false });
    }
    restore(durable, is_same_client) {
        if (is_same_client) {
            this.#entries = this.#entries.filter((entry) => entry.seq === null || entry.seq > durable);
        }
        this.#last = durable;
        for (const entry of this.#entries) {
            entry.is_sent = false;
            if (!is_same_client)
                entry.seq = null;
            this.#last = Math.max(this.#last, entry.seq ?? 0);
        }
    }
    take(all = false) {
        const taken = [];
        const on_their_way = new Set(this.#entries.filter((entry) => entry.is_sent).map((entry) => entry.part));
        for (const entry of this.#entries) {
            if (entry.is_sent)
                continue;
            if (entry.seq === null) {
                if (on_their_way.has(entry.part) && !all)
                    continue;
                this.#last += 1;
                entry.seq = this.#last;
            }
            entry.is_sent = true;
            on_their_way.add(entry.part);
            taken.push({ part: entry.part, patch: entry.patch, seq: entry.seq });
        }
        return taken;
    }
    settle(seq) {
        const at = this.#entries.findIndex((entry) => entry.seq === seq);
        return at < 0 ? undefined : this.#entries.splice(at, 1)[0];
    }
}
function bytes(patch) {
    return new TextEncoder().encode(JSON.stringify(patch)).length;
}
