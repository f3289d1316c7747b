// Test support: a real server, a proxy that can be cut, and browsers whose tabs are clients in this
// process.

import { createHmac } from 'node:crypto';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createConnection, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { Client } from '../dist/client/index.js';

const PROGRAM = process.env.CODITECT_SERVER;
if (!PROGRAM) throw new Error('CODITECT_SERVER must name the server program');

/** Creates a temporary folder, removed on exit. */
export function folder() {
  const path = mkdtempSync(join(tmpdir(), 'coditect-'));
  process.on('exit', () => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Starts a server, stopped after the test `t`. */
export async function serve(t, { args = [], data = folder(), listen = '127.0.0.1:0' } = {}) {
  const child = spawn(
    PROGRAM,
    ['--listen', listen, '--data', data, '--log-level', 'warn', ...args],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  const over = once(child, 'exit');
  const end = async (signal) => {
    child.kill(signal);
    await over;
  };
  const at_exit = () => child.kill('SIGKILL');
  process.on('exit', at_exit);
  t.after(async () => {
    await end('SIGKILL');
    process.off('exit', at_exit);
  });
  const lines = createInterface({ input: child.stdout });
  const [line] = await Promise.race([
    once(lines, 'line'),
    over.then(([code]) => Promise.reject(new Error(`exit code ${code}`))),
  ]);
  const origin = line.replace('listening on ', '');
  return { origin, data, port: Number(new URL(origin).port), kill: () => end('SIGKILL') };
}

/** A proxy to `port` that can be cut: all connections are dropped and new ones refused. */
export async function line(t, port) {
  const open = new Set();
  let is_cut = false;
  const server = createServer((near) => {
    if (is_cut) return void near.destroy();
    const far = createConnection({ port, host: '127.0.0.1' });
    for (const [one, other] of [
      [near, far],
      [far, near],
    ]) {
      open.add(one);
      one.pipe(other);
      one.on('error', () => other.destroy());
      one.on('close', () => {
        open.delete(one);
        other.destroy();
      });
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const cut = () => {
    is_cut = true;
    for (const socket of open) socket.destroy();
  };
  t.after(() => {
    cut();
    server.close();
  });
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    cut,
    mend: () => {
      is_cut = false;
    },
  };
}

/** A browser at an origin: state shared by its tabs. */
export class Browser {
  constructor(t, origin, { locks = true, channels = true } = {}) {
    this.t = t;
    this.origin = origin;
    this.locks = locks;
    this.channels = channels;
    this.shared = new Map();
    this.tabs = [];
    this.queues = new Map();
    /** All requests made by tabs: `POST /auth/refresh`. */
    this.requests = [];
  }

  /** Opens a tab; with `own`, a reload or a duplicate of the tab with that storage. */
  tab({ own = new Map() } = {}) {
    const tab = { own, changed: new Set(), wake: new Set(), leave: new Set(), channels: [] };
    this.tabs.push(tab);
    const env = {
      origin: this.origin,
      fetch: (url, init) => {
        this.requests.push(`${init.method} ${new URL(url).pathname.replace('/api/v5', '')}`);
        return fetch(url, init);
      },
      WebSocket,
      shared: keep(this.shared, (key) =>
        this.#others(tab, (other) => other.changed.forEach((heard) => heard(key))),
      ),
      own: keep(own, () => undefined),
      onSharedChange: listened(tab.changed),
      onWake: listened(tab.wake),
      onLeave: listened(tab.leave),
      channel: this.channels ? () => this.#channel(tab) : () => null,
      lock: this.locks ? (name, work) => this.#alone(name, work) : null,
      now: () => performance.now(),
      random: Math.random,
      id: () => crypto.randomUUID(),
    };
    const client = new Client(env);
    this.t.after(() => client.close());
    return Object.assign(client, { tab });
  }

  count(request) {
    return this.requests.filter((made) => made === request).length;
  }

  #others(tab, tell) {
    for (const other of this.tabs) if (other !== tab) setTimeout(() => tell(other));
  }

  #channel(tab) {
    const channel = { listeners: [] };
    tab.channels.push(channel);
    return {
      postMessage: (data) => {
        const sent = structuredClone(data);
        this.#others(tab, (other) => {
          for (const { listeners } of other.channels)
            listeners.forEach((heard) => heard({ data: sent }));
        });
      },
      addEventListener: (_, listener) => channel.listeners.push(listener),
      close: () => tab.channels.splice(tab.channels.indexOf(channel), 1),
    };
  }

  #alone(name, work) {
    const before = this.queues.get(name) ?? Promise.resolve();
    const mine = before.then(work);
    this.queues.set(
      name,
      mine.catch(() => undefined),
    );
    return mine;
  }
}

function keep(map, changed) {
  return {
    getItem: (key) => map.get(key) ?? null,
    setItem: (key, value) => {
      map.set(key, value);
      changed(key);
    },
    removeItem: (key) => {
      map.delete(key);
      changed(key);
    },
  };
}

function listened(set) {
  return (listener) => {
    set.add(listener);
    return () => set.delete(listener);
  };
}

let people = 0;
/** Returns unused credentials. */
export function somebody() {
  people += 1;
  return {
    email: `somebody-${process.pid}-${people}@example.com`,
    password: 'a long enough secret',
  };
}

export const wait = (duration_ms) => new Promise((resolve) => setTimeout(resolve, duration_ms));

/** Waits for a truthy result of `probe` and returns it. */
export async function eventually(probe, what = probe.toString(), limit_ms = 10_000) {
  const end = performance.now() + limit_ms;
  for (;;) {
    const found = await probe();
    if (found) return found;
    if (performance.now() > end) throw new Error(`timeout: ${what}`);
    await wait(20);
  }
}

/** Decodes UTF-8. */
export const text = (bytes) => new TextDecoder().decode(bytes);

/** Returns the code of an authenticator app (RFC 6238), `steps` steps from now. */
export function totp(secret, steps) {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
  const bits = [...secret]
    .map((letter) => alphabet.indexOf(letter).toString(2).padStart(5, '0'))
    .join('');
  const key = Buffer.from(bits.match(/.{8}/g).map((byte) => Number.parseInt(byte, 2)));
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000) + steps));
  const hash = createHmac('sha1', key).update(counter).digest();
  const at = hash[19] & 15;
  return String((hash.readUInt32BE(at) & 0x7fffffff) % 1_000_000).padStart(6, '0');
}
