// The socket with a real server: synchronization and recovery.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';

import { SessionSocket } from '../dist/client/index.js';
import { Browser, eventually, folder, line, serve, somebody, wait } from './support.mjs';

const server = await serve({ after });

/** Creates a signed-in user with a session. */
async function person(t, origin = server.origin) {
  const browser = new Browser(t, origin);
  const tab = browser.tab();
  const who = somebody();
  await tab.auth.register(who);
  const { id } = await tab.sessions.create({ name: 'a session' });
  return { browser, tab, id, who };
}

/** Opens a socket in a tab and records its callbacks. */
function open(t, tab, id) {
  const heard = { states: [], parts: [], refused: [] };
  const socket = new SessionSocket(tab, id, {
    state: (state) => heard.states.push(state.is === 'ended' ? state.why : state.is),
    part: (part, cause) => heard.parts.push(`${part} ${cause}`),
    refused: (error) => heard.refused.push(error),
  });
  t.after(() => socket.close());
  return Object.assign(socket, { heard });
}

const isOpen = (socket) =>
  eventually(() => socket.state.is === 'open', 'the socket is open', 20_000);
const isSettled = (socket) =>
  eventually(() => socket.unacknowledged === 0, 'all is acknowledged', 20_000);
const memory = async (tab, id) => (await tab.sessions.part(id, 'memory')).value;

test('change in one tab reaches another within a second', async (t) => {
  const { browser, tab, id } = await person(t);
  const [one, two] = [open(t, tab, id), open(t, browser.tab(), id)];
  await Promise.all([isOpen(one), isOpen(two)]);
  const start = performance.now();
  one.update('terminal', { active: 'main', terminals: { main: { title: 'zsh', cwd: '/tmp' } } });
  assert.equal(one.view('terminal').terminals.main.cwd, '/tmp');
  await eventually(() => two.view('terminal').terminals.main?.cwd === '/tmp');
  assert.ok(performance.now() - start < 1_000);
  assert.ok(two.heard.parts.includes('terminal others'));
  await isSettled(one);
});

test('updates written together and earlier changes of others are all applied', async (t) => {
  const { browser, tab, id } = await person(t);
  const second = browser.tab();
  const [one, two] = [open(t, tab, id), open(t, second, id)];
  await Promise.all([isOpen(one), isOpen(two)]);
  for (let round = 0; round < 20; round += 1) {
    // A hidden tab sends everything, so several updates of a part are in flight at once.
    for (let at = 0; at < 4; at += 1) {
      one.update('memory', { [`one ${round} ${at}`]: at });
      two.update('memory', { [`two ${round} ${at}`]: at });
      for (const page of [tab, second]) page.tab.leave.forEach((heard) => heard());
    }
    await Promise.all([isSettled(one), isSettled(two)]);
    const there = await memory(tab, id);
    assert.equal(Object.keys(there).length, 8 * (round + 1));
    for (const socket of [one, two])
      await eventually(() => isDeepStrictEqual(socket.view('memory'), there));
  }
});

test('fast changes are merged, and the last one wins', async (t) => {
  const { tab, id } = await person(t);
  const socket = open(t, tab, id);
  for (let at = 0; at <= 500; at += 1) socket.update('memory', { at, [`key ${at % 10}`]: at });
  await isOpen(socket);
  await isSettled(socket);
  const { value, etag } = await tab.sessions.part(id, 'memory');
  assert.equal(value.at, 500);
  assert.equal(value['key 9'], 499);
  assert.ok(etag);
});

test('cut connection is restored without losing or repeating updates', async (t) => {
  const wire = await line(t, server.port);
  const { tab, id } = await person(t, wire.origin);
  const socket = open(t, tab, id);
  await isOpen(socket);
  const watcher = open(t, new Browser(t, server.origin).tab(), id);
  for (let round = 0; round < 5; round += 1) {
    for (let at = 0; at < 20; at += 1) {
      socket.change('terminal', (terminal) => {
        const main = terminal.terminals.main ?? {
          title: '',
          cwd: '',
          command_history: [],
          environment_vars: {},
        };
        const command_history = [...main.command_history, `command ${round} ${at}`];
        return {
          active: 'main',
          terminals: { ...terminal.terminals, main: { ...main, command_history } },
        };
      });
      if (at % 3 === 0) await wait(2);
      if (at === 10) wire.cut();
    }
    await wait(50);
    wire.mend();
    await isSettled(socket);
  }
  watcher.close();
  const { value } = await tab.sessions.part(id, 'terminal');
  const expected = Array.from(
    { length: 100 },
    (_, at) => `command ${Math.floor(at / 20)} ${at % 20}`,
  );
  assert.deepEqual(value.terminals.main.command_history, expected);
  assert.ok(socket.heard.states.filter((state) => state === 'open').length >= 6);
});

test('restarted server has all acknowledged updates and gets the rest', async (t) => {
  const data = folder();
  const first = await serve(t, { data });
  const { tab, id } = await person(t, first.origin);
  const socket = open(t, tab, id);
  await isOpen(socket);
  socket.update('memory', { before: 1 });
  await isSettled(socket);
  socket.update('memory', { during: 1 });
  await first.kill();
  socket.update('memory', { after: 1 });
  await eventually(() => socket.state.is === 'waiting');
  await serve(t, { data, listen: `127.0.0.1:${first.port}` });
  await isSettled(socket);
  assert.deepEqual(await memory(tab, id), { before: 1, during: 1, after: 1 });
  assert.deepEqual(socket.view('memory'), { before: 1, during: 1, after: 1 });
});

test('unsent updates are sent after a reload', async (t) => {
  const wire = await line(t, server.port);
  const { browser, tab, id } = await person(t, wire.origin);
  const socket = open(t, tab, id);
  await isOpen(socket);
  wire.cut();
  socket.update('memory', { offline: true });
  const own = new Map(tab.tab.own);
  socket.close();
  wire.mend();
  const reloaded = open(t, browser.tab({ own }), id);
  await isOpen(reloaded);
  assert.equal(reloaded.view('memory').offline, true);
  await isSettled(reloaded);
  assert.deepEqual(await memory(tab, id), { offline: true });
});

test('duplicated tab gets its own client id', async (t) => {
  const { browser, tab, id } = await person(t);
  const original = open(t, tab, id);
  await isOpen(original);
  const duplicate = open(t, browser.tab({ own: new Map(tab.tab.own) }), id);
  await isOpen(duplicate);
  duplicate.update('memory', { duplicate: 1 });
  await isSettled(duplicate);
  original.update('memory', { original: 1 });
  await isSettled(original);
  // From here on they do not interfere.
  original.update('memory', { original: 2 });
  duplicate.update('memory', { duplicate: 2 });
  await Promise.all([isSettled(original), isSettled(duplicate)]);
  assert.deepEqual(await memory(tab, id), { original: 2, duplicate: 2 });
  assert.equal(duplicate.heard.states.filter((state) => state === 'open').length, 1);
  assert.equal(original.heard.states.filter((state) => state === 'open').length, 2);
});

test('refused update is undone, and the next one is applied', async (t) => {
  const { tab, id } = await person(t);
  const socket = open(t, tab, id);
  await isOpen(socket);
  socket.update('terminal', { terminals: 5 });
  await eventually(() => socket.heard.refused.length === 1);
  assert.equal(socket.heard.refused[0].code, 'VALIDATION_FAILED');
  assert.deepEqual(socket.view('terminal').terminals, {});
  socket.update('terminal', { active: 'main' });
  await isSettled(socket);
  assert.equal((await tab.sessions.part(id, 'terminal')).value.active, 'main');
});

test('change over HTTP is received', async (t) => {
  const { tab, id } = await person(t);
  const socket = open(t, tab, id);
  await isOpen(socket);
  await tab.sessions.replacePart(id, 'memory', { agent: ['remembers'] });
  await eventually(() => socket.view('memory').agent);
});

test('sign-out and deletion of the session end the socket', async (t) => {
  const { browser, tab, id } = await person(t);
  const deleted = open(t, browser.tab(), (await tab.sessions.create({ name: 'to go' })).id);
  await isOpen(deleted);
  await tab.sessions.delete(
    (await tab.sessions.list()).items.find(({ name }) => name === 'to go').id,
  );
  await eventually(() => deleted.state.is === 'ended');
  assert.equal(deleted.state.why, 'deleted');
  const gone = open(t, tab, '00000000-0000-7000-8000-000000000000');
  await eventually(() => gone.state.is === 'ended');
  assert.equal(gone.state.why, 'deleted');

  const sockets = [open(t, tab, id), open(t, browser.tab(), id)];
  await Promise.all(sockets.map(isOpen));
  await tab.auth.logout();
  await Promise.all(sockets.map((socket) => eventually(() => socket.state.why === 'signed-out')));
});

test('connection outlives its first token', async (t) => {
  const short = await serve(t, { args: ['--access-token-ttl', '2s'] });
  const { tab, id } = await person(t, short.origin);
  const socket = open(t, tab, id);
  await isOpen(socket);
  await wait(4_000);
  socket.update('memory', { still: 'here' });
  await isSettled(socket);
  assert.deepEqual(await memory(tab, id), { still: 'here' });
  assert.equal(socket.state.is, 'open');
});
