/**
 * What the client needs of the world, passed in, so that what depends on time, chance, tabs and the
 * network can be tried with each of them as it may be. {@link browser} is that of a page.
 */

/** What is kept in a tab or an origin: the part of `Storage` that is used. */
export interface Keep {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

/** By which the tabs of an origin tell each other something: the part of `BroadcastChannel` that is used. */
export interface Channel {
  postMessage(message: unknown): void;
  addEventListener(type: 'message', listener: (event: { data: unknown }) => void): void;
  close(): void;
}

export interface Environment {
  /** Where the server is, without a path: `http://localhost:8080`. */
  origin: string;
  fetch(url: string, init: RequestInit): Promise<Response>;
  WebSocket: new (url: string, protocols: string[]) => WebSocket;
  /** Shared by the tabs of the origin, and kept when they are closed. */
  shared: Keep;
  /** The tab's own, kept when it is reloaded. */
  own: Keep;
  /** Told when another tab has changed what is under a key of `shared`. */
  onSharedChange(listener: (key: string | null) => void): () => void;
  channel(name: string): Channel | null;
  /**
   * Runs `work` while no other tab of the origin runs anything under `name`. Where there are no locks
   * (an origin without TLS has none) it is `null`.
   */
  lock: (<T>(name: string, work: () => Promise<T>) => Promise<T>) | null;
  /** Told when there may be a network again, or somebody looks at the tab again. */
  onWake(listener: () => void): () => void;
  /** Told when the tab may be gone in a moment. */
  onLeave(listener: () => void): () => void;
  /** Milliseconds, of a clock that never goes back. */
  now(): number;
  /** From 0 to less than 1. */
  random(): number;
  id(): string;
}

/** The world of the page that this runs in. */
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
    channel: (name) => (typeof BroadcastChannel === 'undefined' ? null : new BroadcastChannel(name)),
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
      // A tab that is hidden may be discarded without another word.
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

/** Waits: at least so many milliseconds, or until `signal` says that it is not worth it any more. */
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
 * How long to wait before an attempt, the first of which is number 0: anything up to a bound that doubles
 * each time (full jitter), so that those who lost a server at once do not come back at once.
 */
export function backoff(attempt: number, random: () => number, first_ms = 250, most_ms = 20_000): number {
  return random() * Math.min(most_ms, first_ms * 2 ** Math.min(attempt, 30));
}

/** `randomUUID` is for secure contexts only; this is the same from what all have. */
function id(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20)}`;
}

/** A store that may be forbidden or full: then nothing is kept, and all else goes on. */
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
