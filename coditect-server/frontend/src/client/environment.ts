/**
 * The environment of the client, injected so that time, randomness, tabs and the network can be
 * controlled in tests. {@link browser} is that of a page.
 */

/** Storage of a tab or an origin: the used part of `Storage`. */
export interface Keep {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

/** Channel between the tabs of an origin: the used part of `BroadcastChannel`. */
export interface Channel {
  postMessage(message: unknown): void;
  addEventListener(type: 'message', listener: (event: { data: unknown }) => void): void;
  close(): void;
}

export interface Environment {
  /** URL of the server without a path: `http://localhost:8080`. */
  origin: string;
  fetch(url: string, init: RequestInit): Promise<Response>;
  WebSocket: new (url: string, protocols: string[]) => WebSocket;
  /** Storage shared by the tabs of the origin, kept when they are closed. */
  shared: Keep;
  /** Storage of the tab, kept when it is reloaded. */
  own: Keep;
  /** Calls back when another tab has changed a key of `shared`. */
  onSharedChange(listener: (key: string | null) => void): () => void;
  channel(name: string): Channel | null;
  /**
   * Runs `work` while no other tab of the origin runs anything under `name`; `null` without locks,
   * as in an origin without TLS.
   */
  lock: (<T>(name: string, work: () => Promise<T>) => Promise<T>) | null;
  /** Calls back when the network may be back, or the tab becomes visible. */
  onWake(listener: () => void): () => void;
  /** Calls back when the tab may be closed soon. */
  onLeave(listener: () => void): () => void;
  /** Milliseconds of a monotonic clock. */
  now(): number;
  /** From 0 to less than 1. */
  random(): number;
  id(): string;
}

/** Returns the environment of this page. */
export function browser(): Environment {
  const locks = navigator.locks as LockManager | undefined;
  return {
    origin: location.origin,
    fetch: (url, init) => fetch(url, init),
    WebSocket,
    shared: guarded(() => localStorage),
    own: guarded(() => sessionStorage),
    onSharedChange: (listener) => {
      const heard = (event: StorageEvent) => listener(event.key);
      addEventListener('storage', heard);
      return () => removeEventListener('storage', heard);
    },
    channel: (name) =>
      typeof BroadcastChannel === 'undefined' ? null : new BroadcastChannel(name),
    lock: locks === undefined ? null : async (name, work) => locks.request(name, work),
    onWake: (listener) => {
      const seen = () => {
        if (document.visibilityState === 'visible') listener();
      };
      addEventListener('online', listener);
      addEventListener('pageshow', listener);
      document.addEventListener('visibilitychange', seen);
      return () => {
        removeEventListener('online', listener);
        removeEventListener('pageshow', listener);
        document.removeEventListener('visibilitychange', seen);
      };
    },
    onLeave: (listener) => {
      // A hidden tab may be discarded without another event.
      const hidden = () => {
        if (document.visibilityState === 'hidden') listener();
      };
      addEventListener('pagehide', listener);
      document.addEventListener('visibilitychange', hidden);
      return () => {
        removeEventListener('pagehide', listener);
        document.removeEventListener('visibilitychange', hidden);
      };
    },
    now: () => performance.now(),
    random: Math.random,
    id,
  };
}

/** Waits for at least `duration_ms`, or until `signal` is aborted. */
export function delay(duration_ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, duration_ms);
    if (signal?.aborted) done();
    else signal?.addEventListener('abort', done);
  });
}

/**
 * Returns the delay before attempt number `attempt`, from 0: random up to a bound that doubles each
 * time (full jitter), so that clients of a lost server do not reconnect at the same time.
 */
export function backoff(
  attempt: number,
  random: () => number,
  first_ms = 250,
  most_ms = 20_000,
): number {
  return random() * Math.min(most_ms, first_ms * 2 ** Math.min(attempt, 30));
}

/** Like `randomUUID`, which needs a secure context. */
function id(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  const [low, middle, end] = [hex.slice(0, 8), hex.slice(8, 12), hex.slice(20)];
  return `${low}-${middle}-4${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${end}`;
}

/** Storage that may be forbidden or full; values are then only kept in memory. */
function guarded(open: () => Storage): Keep {
  const memory = new Map<string, string>();
  const attempt = <T>(work: (storage: Storage) => T, otherwise: () => T): T => {
    try {
      return work(open());
    } catch {
      return otherwise();
    }
  };
  return {
    getItem: (key) =>
      attempt(
        (storage) => storage.getItem(key),
        () => memory.get(key) ?? null,
      ),
    setItem: (key, value) =>
      attempt(
        (storage) => storage.setItem(key, value),
        () => void memory.set(key, value),
      ),
    removeItem: (key) =>
      attempt(
        (storage) => storage.removeItem(key),
        () => void memory.delete(key),
      ),
  };
}
