export function browser() {
    const locks = navigator.locks;
    return {
        origin: location.origin,
        fetch: (url, init) => fetch(url, init),
        WebSocket,
        shared: guarded(() => localStorage),
        own: guarded(() => sessionStorage),
        onSharedChange: (listener) => {
            const heard = (event) => listener(event.key);
            addEventListener('storage', heard);
            return () => removeEventListener('storage', heard);
        },
        channel: (name) => typeof BroadcastChannel === 'undefined' ? null : new BroadcastChannel(name),
        lock: locks === undefined ? null : async (name, work) => locks.request(name, work),
        onWake: (listener) => {
            const seen = () => {
                if (document.visibilityState === 'visible')
                    listener();
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
            const hidden = () => {
                if (document.visibilityState === 'hidden')
                    listener();
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
export function delay(duration_ms, signal) {
    return new Promise((resolve) => {
        const done = () => {
            clearTimeout(timer);
            signal?.removeEventListener('abort', done);
            resolve();
        };
        const timer = setTimeout(done, duration_ms);
        if (signal?.aborted)
            done();
        else
            signal?.addEventListener('abort', done);
    });
}
export function backoff(attempt, random, first_ms = 250, most_ms = 20_000) {
    return random() * Math.min(most_ms, first_ms * 2 ** Math.min(attempt, 30));
}
function id() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
    const [low, middle, end] = [hex.slice(0, 8), hex.slice(8, 12), hex.slice(20)];
    return `${low}-${middle}-4${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${end}`;
}
function guarded(open) {
    const memory = new Map();
    const attempt = (work, otherwise) => {
        try {
            return work(open());
        }
        catch {
            return otherwise();
        }
    };
    return {
        getItem: (key) => attempt((storage) => storage.getItem(key), () => memory.get(key) ?? null),
        setItem: (key, value) => attempt((storage) => storage.setItem(key, value), () => void memory.set(key, value)),
        removeItem: (key) => attempt((storage) => storage.removeItem(key), () => void memory.delete(key)),
    };
}
