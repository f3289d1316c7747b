// The client with a real server: logins in several tabs, entity tags, errors.

import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { after, test } from 'node:test';

import {
  ApiError,
  ConflictError,
  NetworkError,
  SignedOutError,
  LOGIN_KEY,
} from '../dist/client/index.js';
import { Browser, eventually, line, serve, somebody, text, wait } from './support.mjs';

const many = (count, make) => Array.from({ length: count }, (_, at) => make(at));
const stored = (browser) => JSON.parse(browser.shared.get(LOGIN_KEY));

const server = await serve({ after });

async function signedIn(t, options, origin = server.origin) {
  const browser = new Browser(t, origin, options);
  const first = browser.tab();
  const person = somebody();
  await first.auth.register(person);
  return { browser, first, person };
}

test('tabs started at once refresh once and are all signed in', async (t) => {
  const { browser } = await signedIn(t);
  const tabs = many(12, () => browser.tab());
  const users = await Promise.all(tabs.map((tab) => tab.auth.me()));
  assert.equal(new Set(users.map(({ user }) => user.id)).size, 1);
  assert.equal(browser.count('POST /auth/refresh'), 1);
});

test('tabs without locks share one login after a refresh', async (t) => {
  for (const channels of [true, false]) {
    const { browser } = await signedIn(t, { locks: false, channels });
    const tabs = many(12, () => browser.tab());
    await Promise.all(tabs.map((tab) => tab.auth.me()));
    assert.ok(browser.count('POST /auth/refresh') > 1, 'nothing has raced');
    // The stored token is the newest, and further refreshes work.
    for (let round = 0; round < 3; round += 1)
      await Promise.all(tabs.map((tab) => tab.login.refresh()));
    await Promise.all(tabs.map((tab) => tab.auth.me()));
  }
});

test('waiting requests of a tab share one refresh', async (t) => {
  const { browser } = await signedIn(t, { locks: false });
  const tab = browser.tab();
  await Promise.all(many(10, () => tab.auth.me()));
  assert.equal(browser.count('POST /auth/refresh'), 1);
});

test('refused token is replaced and the request retried', async (t) => {
  const { browser, first } = await signedIn(t);
  const { login } = stored(browser);
  const told = { type: 'access', login, token: 'not.a.token', life_ms: 900_000, left_ms: 900_000 };
  for (const { listeners } of first.tab.channels)
    listeners.forEach((heard) => heard({ data: told }));
  await first.auth.me();
  assert.equal(browser.count('GET /auth/me'), 2);
  assert.equal(browser.count('POST /auth/refresh'), 1);
});

test('token is refreshed before it expires', async (t) => {
  const short = await serve(t, { args: ['--access-token-ttl', '5s'] });
  const { browser, first } = await signedIn(t, {}, short.origin);
  await first.auth.me();
  assert.equal(browser.count('POST /auth/refresh'), 0);
  await wait(4_300);
  await first.auth.me();
  assert.equal(browser.count('POST /auth/refresh'), 1);
  assert.equal(browser.count('GET /auth/me'), 2);
});

test('sign-out in one tab signs out all tabs', async (t) => {
  for (const channels of [true, false]) {
    const { browser, first } = await signedIn(t, { channels });
    const others = many(3, () => browser.tab());
    await Promise.all(others.map((tab) => tab.auth.me()));
    const heard = [];
    others.forEach((tab, at) => tab.login.onChange((change) => heard.push(`${at} ${change}`)));
    const { refresh_token } = stored(browser);
    assert.equal(await first.auth.logout(), true);
    await eventually(() => heard.length === 3);
    assert.deepEqual(heard.sort(), ['0 out', '1 out', '2 out']);
    for (const tab of [first, ...others]) await assert.rejects(tab.auth.me(), SignedOutError);
    const again = await fetch(`${server.origin}/api/v5/auth/refresh`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ refresh_token }),
    });
    assert.equal(again.status, 401);
  }
});

test('revoked login ends with the next request', async (t) => {
  const { browser, first, person } = await signedIn(t);
  const elsewhere = new Browser(t, server.origin).tab();
  await elsewhere.auth.login(person);
  const device = (await elsewhere.devices.list()).items.find((device) => !device.current);
  await elsewhere.devices.revoke(device.id);
  const heard = [];
  first.login.onChange((change) => heard.push(change));
  await assert.rejects(first.auth.me(), SignedOutError);
  assert.deepEqual(heard, ['out']);
  assert.equal(browser.shared.get(LOGIN_KEY), undefined);
});

test('unreachable server does not end the login', async (t) => {
  const wire = await line(t, server.port);
  const { browser, first } = await signedIn(t, {}, wire.origin);
  const tab = browser.tab();
  wire.cut();
  await assert.rejects(tab.auth.me(), NetworkError);
  await assert.rejects(first.auth.changePassword('a', 'b'), NetworkError);
  assert.ok(browser.shared.get(LOGIN_KEY));
  wire.mend();
  await tab.auth.me();
});

test('reuse of a token replaced just now is not treated as theft', async (t) => {
  const { browser, first } = await signedIn(t, { channels: false });
  const old = browser.shared.get(LOGIN_KEY);
  await first.login.refresh();
  const newest = browser.shared.get(LOGIN_KEY);
  assert.notEqual(newest, old);
  // A tab that has not seen the change yet.
  browser.shared.set(LOGIN_KEY, old);
  await browser.tab().auth.me();
  assert.equal(browser.shared.get(LOGIN_KEY), newest);
});

test('wrong password is reported without a refresh', async (t) => {
  const { browser, first, person } = await signedIn(t);
  const refused = await first.auth
    .login({ ...person, password: 'another one' })
    .catch((error) => error);
  assert.ok(refused instanceof ApiError);
  assert.deepEqual([refused.status, refused.code], [401, 'INVALID_CREDENTIALS']);
  assert.ok(refused.request_id);
  await assert.rejects(first.auth.changePassword('not mine', 'a new long secret'), {
    code: 'INVALID_CREDENTIALS',
  });
  assert.equal(browser.count('POST /auth/refresh'), 0);
});

test('refusals name the fields, and a rate limit has a retry delay', async (t) => {
  const { first, person } = await signedIn(t);
  const weak = await first.auth
    .register({ email: 'x@example.com', password: 'short' })
    .catch((error) => error);
  assert.equal(weak.code, 'WEAK_PASSWORD');
  assert.equal(weak.fields[0].field, 'password');
  let refused;
  for (let attempt = 0; attempt < 10 && refused?.status !== 429; attempt += 1) {
    refused = await first.auth
      .login({ ...person, password: `wrong ${attempt}` })
      .catch((error) => error);
  }
  assert.equal(refused.status, 429);
  assert.ok(refused.retry_after >= 1);
});

test('a request that is refused while responses are unread is repeated', async (t) => {
  const small = await serve(t, { args: ['--max-unread-responses', '160MiB'] });
  const { browser, first } = await signedIn(t, {}, small.origin);
  const fill = async () => {
    const { id } = await first.sessions.create({ name: 'large' });
    for (let front = 0; front < 10; front += 1) {
      const keys = many(10, (key) => [`k${front}${key}`, 'x'.repeat(79_000)]);
      await first.sessions.mergePart(id, 'memory', Object.fromEntries(keys));
    }
    return id;
  };
  const [unread, wanted] = [await fill(), await fill()];
  // A reader of the one memory that reads nothing: together they are more than a user may hold.
  const token = await first.login.token();
  const socket = connect(small.port, '127.0.0.1');
  t.after(() => socket.destroy());
  socket.pause();
  socket.write(
    `GET /api/v5/sessions/${unread}/memory HTTP/1.1\r\nHost: a\r\n` +
      `Authorization: Bearer ${token}\r\n\r\n`,
  );
  await wait(1_000);
  setTimeout(() => socket.destroy(), 1_500);
  const path = `GET /sessions/${wanted}/memory`;
  const { value } = await first.sessions.part(wanted, 'memory');
  assert.equal(Object.keys(value).length, 100);
  assert.ok(browser.count(path) > 1, 'it was not refused');
});

test('unseen change of another client is not overwritten', async (t) => {
  const { browser, first } = await signedIn(t);
  const second = browser.tab();
  const { id } = await first.sessions.create({ name: 'one' });
  await first.sessions.get(id);
  await second.sessions.get(id);
  await second.sessions.update(id, { name: 'two' });
  const conflict = await first.sessions.update(id, { name: 'three' }).catch((error) => error);
  assert.ok(conflict instanceof ConflictError);
  assert.equal(conflict.status, 412);
  assert.equal(conflict.current.value.name, 'two');
  // After the read, the change is allowed.
  const changed = await first.sessions.update(id, { name: 'three' });
  assert.equal(changed.value.name, 'three');
});

test('conflict of a file has its present bytes', async (t) => {
  const { first } = await signedIn(t);
  const { id } = await first.sessions.create({ name: 'files' });
  const name = 'a folder/ünï %41?#.bin';
  const { etag } = await first.files.write(id, name, new Uint8Array([0, 255, 13, 10]), 'absent');
  assert.deepEqual(
    new Uint8Array((await first.files.read(id, name)).value),
    new Uint8Array([0, 255, 13, 10]),
  );
  const theirs = await first.files.write(id, name, 'theirs', { etag });
  const conflict = await first.files.write(id, name, 'mine', { etag }).catch((error) => error);
  assert.ok(conflict instanceof ConflictError);
  assert.equal(text(conflict.current.value), 'theirs');
  assert.equal(conflict.current.etag, theirs.etag);
  await first.files.write(id, name, 'mine', { etag: conflict.current.etag });
  await first.files.delete(id, name);
  const gone = await first.files
    .write(id, name, 'mine', { etag: theirs.etag })
    .catch((error) => error);
  assert.ok(gone instanceof ConflictError);
  assert.equal(gone.current, null);
});

test('drafts, moves, directories, versions and lists round-trip', async (t) => {
  const { first } = await signedIn(t);
  const { id } = await first.sessions.create({
    name: 'more files',
    workspace_path: `/w/${crypto.randomUUID()}`,
  });
  const one = await first.files.write(id, 'src/main.rs', 'one', 'absent');
  await first.files.write(id, 'src/main.rs', 'two', { etag: one.etag });
  assert.deepEqual(
    (await first.files.versions(id, 'src/main.rs')).map(({ size }) => size).length,
    2,
  );
  assert.equal(text((await first.files.read(id, 'src/main.rs', 1)).value), 'one');
  assert.equal(await first.drafts.get(id, 'src/main.rs'), null);
  await first.drafts.save(id, 'src/main.rs', { content: 'unsaved', base_etag: one.value.sha256 });
  const draft = await first.drafts.get(id, 'src/main.rs');
  assert.equal(draft.content, 'unsaved');
  assert.notEqual(draft.current_etag, draft.base_etag);
  await first.drafts.delete(id, 'src/main.rs');
  await first.drafts.delete(id, 'src/main.rs');
  await first.files.createDirectory(id, 'docs');
  await first.files.move(id, { from: 'src/main.rs', to: 'docs/main.rs' });
  await first.files.copy(id, { from: 'docs/main.rs', to: 'docs/copy.rs' });
  const { items } = await first.files.list(id, { recursive: true });
  assert.deepEqual(
    items.map(({ path }) => path),
    ['docs', 'docs/copy.rs', 'docs/main.rs', 'src'],
  );
  await assert.rejects(first.files.delete(id, 'docs'), { code: 'NOT_EMPTY' });
  await first.files.delete(id, 'docs', true);
  await first.sessions.create({ name: 'another' });
  const page = await first.sessions.list({ limit: 1 });
  assert.deepEqual(
    page.items.map(({ name }) => name),
    ['another'],
  );
  const next = await first.sessions.list({ limit: 1, cursor: page.next_cursor });
  assert.deepEqual(
    next.items.map(({ name }) => name),
    ['more files'],
  );
});

test('other records round-trip', async (t) => {
  const { first } = await signedIn(t);
  const { id } = await first.sessions.create({ name: 'records' });
  const conversation = await first.conversations.create({ title: 'about it', session_id: id });
  await first.conversations.createMessage(conversation.id, { content: 'hello' });
  const said = await first.conversations.listMessages(conversation.id, { order: 'desc' });
  assert.deepEqual(
    said.items.map(({ content, author }) => [content, author.type]),
    [['hello', 'user']],
  );
  await first.settings.put('theme', { dark: true });
  assert.deepEqual(
    (await first.settings.list()).map(({ key, value }) => [key, value]),
    [['theme', { dark: true }]],
  );
  const agent = await first.agents.create({ name: 'helper' });
  assert.equal(
    (await first.agents.update(agent.id, { description: 'helps' })).value.description,
    'helps',
  );
  await first.clientState.put(id, 'layout/main', new Uint8Array([1, 2]));
  assert.deepEqual(
    new Uint8Array((await first.clientState.get(id, 'layout/main')).value),
    new Uint8Array([1, 2]),
  );
  assert.deepEqual(
    (await first.clientState.list(id)).map(({ key }) => key),
    ['layout/main'],
  );
  assert.ok((await first.audit()).items.length > 0);
  assert.equal((await first.tenant.mine()).items[0].own, true);
  const token = await first.tokens.create({ name: 'ci', scopes: ['sessions:read'] });
  assert.match(token.token, /./);
  assert.equal((await first.health()).status, 'ok');
  await first.sessions.delete(id);
  await assert.rejects(first.sessions.get(id), { status: 404 });
});
