// The page in a real browser with a real server.

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { chromium } from 'playwright-core';

import { Browser, eventually, serve, somebody, text, totp, wait } from './support.mjs';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const pictures = process.env.CODITECT_SCREENSHOTS;
if (pictures) mkdirSync(pictures, { recursive: true });

const server = await serve(
  { after },
  { args: ['--frontend', fileURLToPath(new URL('../dist', import.meta.url))] },
);
const browser = await chromium.launch({
  executablePath: process.env.CODITECT_CHROMIUM ?? '/usr/bin/chromium',
  args: [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ],
});
after(() => browser.close());

/** A new browser context. Console errors fail the test, except for statuses in `expected`. */
async function another(t, { expected = [], ...options } = {}) {
  const context = await browser.newContext({
    viewport: { width: 1280, height: 800 },
    reducedMotion: 'reduce',
    ...options,
  });
  const complaints = [];
  context.on('page', (page) => {
    page.setDefaultTimeout(8_000);
    page.on('console', (message) => {
      const said = message.text();
      if (message.type() !== 'error' && message.type() !== 'warning') return;
      if (!expected.some((status) => said.includes(`status of ${status}`))) complaints.push(said);
    });
    page.on('response', (answer) => {
      if (answer.status() >= 400 && process.env.CODITECT_TRACE)
        console.log(answer.status(), answer.request().method(), answer.url());
    });
    page.on('pageerror', (error) => complaints.push(String(error)));
  });
  t.after(async () => {
    await context.close();
    assert.deepEqual(complaints, []);
  });
  return context;
}

async function picture(page, name) {
  if (pictures) await page.screenshot({ path: join(pictures, `${name}.png`) });
}

async function accessible(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() =>
    axe.run(document, { resultTypes: ['violations'] }),
  );
  const shown = violations.map(
    ({ id, nodes }) =>
      `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join('; ')}`,
  );
  assert.deepEqual(shown, []);
}

/** Fails if the page is wider than the window. */
async function fits(page) {
  const widths = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(widths[0] <= widths[1], `${widths[0]} pixels in a window of ${widths[1]}`);
}

async function signIn(page, { email, password }) {
  await page.goto(server.origin);
  await page.getByLabel('E-mail address').fill(email);
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('heading', { name: 'Your sessions' }).waitFor();
}

/** Creates a user with a session and files over the API. */
async function prepared(t, files = {}) {
  const client = new Browser(t, server.origin).tab();
  const person = somebody();
  await client.auth.register(person);
  const { id } = await client.sessions.create({ name: 'Prepared' });
  for (const [path, content] of Object.entries(files))
    await client.files.write(id, path, content, 'absent');
  return { client, person, id };
}

const open = async (page, id) => {
  await page.goto(`${server.origin}/#/sessions/${id}`);
  await page.getByText('Connected', { exact: true }).waitFor();
};
const area = (page) => page.locator('.body textarea:visible');
const tab = (page, name) =>
  page.getByRole('tablist', { name: 'Open files' }).getByRole('tab', { name });
const item = (page, name) => page.getByRole('treeitem', { name, exact: true });
const cursor = (page) => area(page).evaluate((it) => [it.selectionStart, it.selectionEnd]);
const read = async (client, id, path) => text((await client.files.read(id, path)).value);

async function makeFile(page, path) {
  await page.getByRole('button', { name: 'New file' }).click();
  await page.getByLabel('Path').fill(path);
  await page.getByRole('button', { name: 'Create' }).click();
  await tab(page, path.split('/').at(-1)).waitFor();
  await area(page).and(page.locator(':not([readonly])')).waitFor();
}

test('state survives a reload and appears in a second browser', async (t) => {
  const person = somebody();
  const page = await (await another(t)).newPage();
  await page.goto(server.origin);
  await picture(page, 'sign-in');
  await accessible(page);
  await page.getByRole('button', { name: 'New here' }).click();
  await picture(page, 'register');
  await page.getByLabel('First name').fill('Ada');
  await page.getByLabel('E-mail address').fill(person.email);
  await page.getByLabel('Password').fill(person.password);
  await page.getByRole('button', { name: 'Create account' }).click();

  await page.getByLabel('Name', { exact: true }).fill('Test Project');
  await page.getByLabel('Workspace folder').fill('/workspace/test-project');
  await page.getByRole('button', { name: 'New session' }).click();
  await page.getByText('Connected', { exact: true }).waitFor();
  const { href } = await page.evaluate(() => ({ href: location.href }));
  await picture(page, 'empty-session');
  await accessible(page);

  await makeFile(page, 'src/main.rs');
  await area(page).fill('fn main() {\n    println!("hello");\n}\n');
  await page.getByText('Not saved', { exact: true }).waitFor();
  await page.keyboard.press('Control+s');
  await page.getByText('Saved', { exact: true }).waitFor();
  await makeFile(page, 'README.md');
  await area(page).fill('# A project\n\nOf ours.\n');
  await page.keyboard.press('Control+s');
  await page.getByText('Saved', { exact: true }).waitFor();
  await tab(page, 'main.rs').click();
  await area(page).focus();
  await area(page).evaluate((it) => it.setSelectionRange(16, 23));
  await page.getByText('Line 2, column 12, 7 selected').waitFor();

  await page.getByRole('button', { name: 'New terminal' }).click();
  await page.getByLabel('Directory').fill('/workspace/test-project/src');
  await page.getByLabel('Directory').press('Enter');
  for (const command of ['cargo check', 'git status']) {
    await page.getByLabel('Command to record').fill(command);
    await page.getByLabel('Command to record').press('Enter');
  }
  await wait(400);
  await picture(page, 'session');
  await accessible(page);

  const asLeft = async (page) => {
    await area(page).and(page.locator(':not([readonly])')).waitFor();
    assert.deepEqual(
      await page.getByRole('tablist', { name: 'Open files' }).getByRole('tab').allTextContents(),
      ['main.rs×', 'README.md×'],
    );
    assert.equal(await tab(page, 'main.rs').getAttribute('aria-selected'), 'true');
    assert.equal(await area(page).inputValue(), 'fn main() {\n    println!("hello");\n}\n');
    await eventually(async () => (await cursor(page)).join() === '16,23', 'the selection is there');
    assert.equal(await page.getByLabel('Directory').inputValue(), '/workspace/test-project/src');
    assert.deepEqual(
      await page
        .getByRole('list', { name: 'Recorded commands' })
        .getByRole('listitem')
        .allTextContents(),
      ['cargo check', 'git status'],
    );
    await item(page, 'main.rs').waitFor();
  };
  await page.reload();
  await asLeft(page);

  const elsewhere = await (await another(t)).newPage();
  await signIn(elsewhere, person);
  await picture(elsewhere, 'home');
  await accessible(elsewhere);
  await elsewhere.getByRole('link', { name: 'Test Project' }).click();
  assert.equal(elsewhere.url(), href);
  await asLeft(elsewhere);

  // Changes in one browser appear in the other.
  const seen = async (act, look) => {
    await act();
    const start = performance.now();
    await look();
    assert.ok(performance.now() - start < 1_000, 'took longer than a second');
  };
  await seen(
    () => tab(elsewhere, 'README.md').click(),
    () =>
      eventually(
        async () => (await tab(page, 'README.md').getAttribute('aria-selected')) === 'true',
      ),
  );
  await elsewhere.getByLabel('Command to record').fill('ls');
  await seen(
    () => elsewhere.getByLabel('Command to record').press('Enter'),
    () => page.getByRole('listitem').filter({ hasText: 'ls' }).waitFor(),
  );
  await area(elsewhere).fill('# Ours\n');
  await seen(
    () => elsewhere.keyboard.press('Control+s'),
    () => eventually(async () => (await area(page).inputValue()) === '# Ours\n'),
  );
  await seen(
    () => makeFile(elsewhere, 'src/lib.rs'),
    () => item(page, 'lib.rs').waitFor(),
  );
});

test('conflicting save asks the user and loses nothing', async (t) => {
  const { client, person, id } = await prepared(t, { 'notes.txt': 'first\n' });
  const page = await (await another(t, { expected: [412] })).newPage();
  await signIn(page, person);
  await open(page, id);
  await item(page, 'notes.txt').click();
  await area(page).and(page.locator(':not([readonly])')).waitFor();
  const theirs = async (content) => client.files.write(id, 'notes.txt', content, 'anything');
  const dialog = page.getByRole('dialog', { name: 'notes.txt was changed elsewhere' });

  await area(page).fill('mine\n');
  await theirs('theirs\n');
  await page.keyboard.press('Control+s');
  await dialog.waitFor();
  assert.equal(await dialog.getByLabel('Your version (not saved)').inputValue(), 'mine\n');
  assert.equal(await dialog.getByLabel('Saved version').inputValue(), 'theirs\n');
  await picture(page, 'conflict');
  await accessible(page);
  await page.keyboard.press('Escape');
  assert.equal(await read(client, id, 'notes.txt'), 'theirs\n');
  assert.equal(await area(page).inputValue(), 'mine\n');

  await page.keyboard.press('Control+s');
  await dialog.getByRole('button', { name: 'Take theirs' }).click();
  await eventually(async () => (await area(page).inputValue()) === 'theirs\n');
  await page.getByRole('button', { name: 'Restore' }).click();
  assert.equal(await area(page).inputValue(), 'mine\n');

  // It is based on the first version, so this conflicts as well.
  await page.keyboard.press('Control+s');
  await dialog.getByRole('button', { name: 'Keep mine' }).click();
  await page.getByText('Saved', { exact: true }).waitFor();
  assert.equal(await read(client, id, 'notes.txt'), 'mine\n');
  assert.equal(text((await client.files.read(id, 'notes.txt', 2)).value), 'theirs\n');
});

test('unsaved text is offered after a reload', async (t) => {
  const { client, person, id } = await prepared(t, { 'notes.txt': 'first\n' });
  const page = await (await another(t)).newPage();
  await signIn(page, person);
  await open(page, id);
  await item(page, 'notes.txt').click();
  await area(page).and(page.locator(':not([readonly])')).waitFor();
  await area(page).fill('first\nsecond');
  await eventually(async () => (await client.drafts.list(id)).length === 1);
  await page.reload();
  await page.getByText('You have unsaved changes from').waitFor();
  await page.locator('[role="treeitem"][aria-selected="true"]', { hasText: 'notes.txt' }).waitFor();
  await picture(page, 'draft');
  await accessible(page);
  assert.equal(await area(page).inputValue(), 'first\n');
  // Read-only while a draft is offered: input would replace the draft.
  await area(page).focus();
  await page.keyboard.type('x');
  assert.equal(await area(page).inputValue(), 'first\n');
  await page.getByRole('button', { name: 'Restore' }).click();
  assert.equal(await area(page).inputValue(), 'first\nsecond');
  await page.keyboard.press('Control+s');
  await page.getByText('Saved', { exact: true }).waitFor();
  assert.equal(await read(client, id, 'notes.txt'), 'first\nsecond');
  await eventually(async () => (await client.drafts.list(id)).length === 0);
});

test('files are renamed, moved, uploaded and deleted without changing their bytes', async (t) => {
  const { client, person, id } = await prepared(t, {
    'dos.txt': 'one\r\ntwo\r\n',
    'mixed.txt': 'a\r\nb\n',
    'raw.bin': new Uint8Array([0, 1, 255]),
  });
  const page = await (await another(t)).newPage();
  await signIn(page, person);
  await open(page, id);
  await item(page, 'dos.txt').click();
  await area(page).and(page.locator(':not([readonly])')).waitFor();
  await area(page).fill('one\ntwo\nthree\n');
  await page.keyboard.press('Control+s');
  await page.getByText('Saved', { exact: true }).waitFor();
  assert.equal(await read(client, id, 'dos.txt'), 'one\r\ntwo\r\nthree\r\n');
  await item(page, 'mixed.txt').click();
  await page.getByText('Read only').waitFor();
  await item(page, 'raw.bin').click();
  await page.getByText('This file is not text.').waitFor();

  await item(page, 'dos.txt').click();
  await item(page, 'dos.txt').press('F2');
  await page.getByLabel('Path').fill('docs/unix.txt');
  await page.getByRole('button', { name: 'Move' }).click();
  await tab(page, 'unix.txt').waitFor();
  await item(page, 'docs').waitFor();
  await page.getByRole('button', { name: 'New folder' }).click();
  await page.getByLabel('Path').fill('empty');
  await page.getByRole('button', { name: 'Create' }).click();
  await item(page, 'empty').waitFor();

  // A file dropped on a folder is uploaded there.
  const transfer = await page.evaluateHandle(() => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array([0, 200, 1])], 'dropped.bin'));
    return transfer;
  });
  await item(page, 'empty').dispatchEvent('drop', { dataTransfer: transfer });
  await item(page, 'dropped.bin').waitFor();
  const { value } = await client.files.read(id, 'empty/dropped.bin');
  assert.deepEqual(new Uint8Array(value), new Uint8Array([0, 200, 1]));

  await item(page, 'docs').focus();
  await item(page, 'docs').press('Delete');
  await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  await item(page, 'docs').waitFor({ state: 'detached' });
  await tab(page, 'unix.txt').waitFor({ state: 'detached' });
  assert.deepEqual(
    (await client.files.list(id)).items.map(({ path }) => path),
    ['empty', 'mixed.txt', 'raw.bin'],
  );
});

test('file deleted elsewhere is created again or discarded', async (t) => {
  const { client, person, id } = await prepared(t, { 'notes.txt': 'first\n' });
  const page = await (await another(t, { expected: [404, 412] })).newPage();
  await signIn(page, person);
  await open(page, id);
  await item(page, 'notes.txt').click();
  await area(page).and(page.locator(':not([readonly])')).waitFor();
  const dialog = page.getByRole('dialog', { name: 'notes.txt was deleted elsewhere' });

  await area(page).fill('mine\n');
  await client.files.delete(id, 'notes.txt');
  await page.keyboard.press('Control+s');
  await dialog.getByRole('button', { name: 'Keep mine' }).click();
  await page.getByText('Saved', { exact: true }).waitFor();
  assert.equal(await read(client, id, 'notes.txt'), 'mine\n');

  await area(page).fill('more\n');
  await client.files.delete(id, 'notes.txt');
  await page.keyboard.press('Control+s');
  await dialog.getByRole('button', { name: 'Discard mine' }).click();
  await tab(page, 'notes.txt').waitFor({ state: 'detached' });
});

test('sign-out keeps unsaved text, and a passive page does not move the cursor', async (t) => {
  const { client, person, id } = await prepared(t, { 'notes.txt': 'one\n' });
  const page = await (await another(t)).newPage();
  const looking = await (await another(t)).newPage();
  for (const one of [page, looking]) {
    await signIn(one, person);
    await open(one, id);
  }
  await item(page, 'notes.txt').click();
  await area(page).and(page.locator(':not([readonly])')).waitFor();
  await area(page).focus();
  await page.keyboard.press('Control+End');
  await page.keyboard.type('two\nthree\nfour');
  const cursorOf = async () => (await client.sessions.part(id, 'editor')).value.tabs[0]?.cursor;
  await eventually(async () => (await cursorOf())?.line === 3);
  await wait(500);
  assert.deepEqual(await cursorOf(), { line: 3, column: 4 });
  await page.keyboard.type('!');
  await page.getByRole('button', { name: 'Sign out', exact: true }).click();
  await page.getByRole('heading', { name: 'Sign in' }).waitFor();
  assert.equal((await client.drafts.get(id, 'notes.txt')).content, 'one\ntwo\nthree\nfour!');
});

test('second factor is requested', async (t) => {
  const { client, person } = await prepared(t);
  const { secret } = await client.totp.setUp(person.password);
  await client.totp.confirm(totp(secret, 0));
  const page = await (await another(t, { expected: [401] })).newPage();
  await page.goto(server.origin);
  await page.getByLabel('E-mail address').fill(person.email);
  await page.getByLabel('Password').fill(person.password);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByLabel('Authenticator or recovery code').waitFor();
  await picture(page, 'second-factor');
  await accessible(page);
  // The present code was used to confirm.
  await page.getByLabel('Authenticator or recovery code').fill(totp(secret, 1));
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('heading', { name: 'Your sessions' }).waitFor();
});

test('devices are listed and revoked, sessions renamed and deleted', async (t) => {
  const { person } = await prepared(t);
  const first = await (await another(t, { expected: [401] })).newPage();
  await signIn(first, person);
  const second = await (await another(t)).newPage();
  await signIn(second, person);
  await second.getByText('this device').waitFor();
  await second.getByRole('button', { name: 'Sign out all others' }).click();
  await second.getByRole('dialog').getByRole('button', { name: 'Sign out all others' }).click();
  await eventually(
    async () =>
      (await second
        .getByRole('list', { name: 'Signed-in devices' })
        .getByRole('listitem')
        .count()) === 1,
  );
  await second.getByRole('button', { name: 'Rename Prepared' }).click();
  await second.getByLabel('Name', { exact: true }).last().fill('Renamed');
  await second.getByRole('dialog').getByRole('button', { name: 'Rename' }).click();
  await second.getByRole('link', { name: 'Renamed' }).waitFor();
  await second.getByRole('button', { name: 'Delete Renamed' }).click();
  await second.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  await second.getByText('No sessions yet').waitFor();
  await first.reload();
  await first.getByRole('heading', { name: 'Sign in' }).waitFor();
});

test('tabs reloaded at once stay signed in and sign out together', async (t) => {
  const { person, id } = await prepared(t);
  const context = await another(t);
  const pages = await Promise.all(Array.from({ length: 4 }, () => context.newPage()));
  await signIn(pages[0], person);
  await Promise.all(pages.map((page) => open(page, id)));
  for (let round = 0; round < 2; round += 1) {
    await Promise.all(pages.map((page) => page.reload()));
    await Promise.all(pages.map((page) => page.getByText('Connected', { exact: true }).waitFor()));
  }
  await pages[0].getByRole('button', { name: 'Sign out', exact: true }).click();
  await Promise.all(pages.map((page) => page.getByRole('heading', { name: 'Sign in' }).waitFor()));
});

test('page reconnects to a restarted server and sends pending changes', async (t) => {
  const own = await serve(t, {
    args: ['--frontend', fileURLToPath(new URL('../dist', import.meta.url))],
  });
  const client = new Browser(t, own.origin).tab();
  const person = somebody();
  await client.auth.register(person);
  const { id } = await client.sessions.create({ name: 'Through a storm' });
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  await page.goto(`${own.origin}/#/sessions/${id}`);
  await page.getByLabel('E-mail address').fill(person.email);
  await page.getByLabel('Password').fill(person.password);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByText('Connected', { exact: true }).waitFor();
  await own.kill();
  await page.getByText('Disconnected, reconnecting.').waitFor();
  await page.getByRole('button', { name: 'New terminal' }).click();
  await page.getByText('1 change is waiting to be sent.').waitFor();
  await picture(page, 'no-connection');
  await serve(t, { data: own.data, listen: `127.0.0.1:${own.port}` });
  await page.getByText('Connected', { exact: true }).waitFor({ timeout: 20_000 });
  await eventually(
    async () => (await client.sessions.part(id, 'terminal')).value.terminals.main !== undefined,
  );
});

test('page is usable with the keyboard only', async (t) => {
  const { client, person, id } = await prepared(t, {
    'a.txt': 'alpha\n',
    'b.txt': 'beta\n',
    'src/c.txt': 'gamma\n',
  });
  const page = await (await another(t)).newPage();
  await page.goto(`${server.origin}/#/sessions/${id}`);
  await page.getByLabel('E-mail address').and(page.locator(':focus')).waitFor();
  await page.keyboard.type(person.email);
  await page.keyboard.press('Tab');
  await page.keyboard.type(person.password);
  await page.keyboard.press('Enter');
  await page.getByText('Connected', { exact: true }).waitFor();
  await item(page, 'a.txt').waitFor();

  const focused = () =>
    page.evaluate(
      () => document.activeElement?.getAttribute('title') ?? document.activeElement?.textContent,
    );
  const tabTo = async (what) => {
    for (
      let step = 0;
      step < 40 && !(await what.evaluate((it) => it === document.activeElement));
      step += 1
    )
      await page.keyboard.press('Tab');
    assert.ok(await what.evaluate((it) => it === document.activeElement), 'reachable with Tab');
    const outline = await what.evaluate((it) =>
      [getComputedStyle(it).outlineStyle, getComputedStyle(it).boxShadow].join(),
    );
    assert.notEqual(outline, 'none,none');
  };
  await page.locator('#main').press('Shift+Tab');
  await page.keyboard.press('Shift+Tab');
  await page.keyboard.press('Shift+Tab');
  assert.equal(await focused(), 'Skip to content');
  await page.keyboard.press('Enter');
  assert.equal(await page.evaluate(() => document.activeElement?.id), 'main');
  assert.ok(page.url().endsWith(id));
  await tabTo(item(page, 'src'));
  await page.keyboard.press('ArrowRight');
  await item(page, 'c.txt').waitFor();
  await page.keyboard.press('ArrowRight');
  assert.equal(await focused(), 'src/c.txt');
  await page.keyboard.press('Enter');
  await tab(page, 'c.txt').waitFor();
  await page.keyboard.press('ArrowLeft');
  await page.keyboard.press('b');
  assert.equal(await focused(), 'b.txt');
  await page.keyboard.press('Enter');
  await tab(page, 'b.txt').waitFor();

  await tabTo(tab(page, 'b.txt'));
  await page.keyboard.press('ArrowLeft');
  assert.equal(await tab(page, 'c.txt').getAttribute('aria-selected'), 'true');
  await page.keyboard.press('Delete');
  await tab(page, 'c.txt').waitFor({ state: 'detached' });
  await tabTo(area(page));
  await page.keyboard.press('Control+End');
  await page.keyboard.type('more');
  await page.keyboard.press('Control+s');
  await page.getByText('Saved', { exact: true }).waitFor();
  assert.equal(await read(client, id, 'b.txt'), 'beta\nmore');
});

for (const colorScheme of ['light', 'dark']) {
  test(`page is accessible in ${colorScheme} mode and at 360 pixels`, async (t) => {
    const { client, person, id } = await prepared(t, {
      'src/main.rs': 'fn main() {}\n',
      'a-rather-long-name-of-a-file-that-goes-on.md': '# Long\n',
    });
    await client.sessions.replacePart(id, 'memory', {
      plan: ['read', 'write'],
      model: { name: 'x', steps: 3 },
    });
    await client.sessions.replacePart(id, 'terminal', {
      active: 'main',
      terminals: {
        main: {
          title: 'zsh',
          cwd: '/workspace',
          command_history: ['npm install', 'npm test'],
          environment_vars: {},
        },
      },
    });
    const context = await another(t, { colorScheme });
    const page = await context.newPage();
    await signIn(page, person);
    await picture(page, `home-${colorScheme}`);
    await open(page, id);
    await item(page, 'src').click();
    await item(page, 'main.rs').click();
    await area(page).and(page.locator(':not([readonly])')).waitFor();
    await area(page).fill('fn main() {\n    println!("changed");\n}\n');
    await picture(page, `session-${colorScheme}`);
    await accessible(page);
    await page.setViewportSize({ width: 360, height: 740 });
    for (const view of ['Files', 'Editor', 'Terminal', 'Memory']) {
      await page.getByRole('group', { name: 'Panels' }).getByRole('button', { name: view }).click();
      await fits(page);
      await accessible(page);
      await picture(page, `narrow-${view.toLowerCase()}-${colorScheme}`);
    }
    await page.getByRole('link', { name: 'Coditect' }).click();
    await page.getByRole('link', { name: 'Prepared' }).waitFor();
    await fits(page);
    await accessible(page);
    await picture(page, `narrow-home-${colorScheme}`);
    await page.getByRole('button', { name: 'Sign out', exact: true }).click();
    await page.getByRole('heading', { name: 'Sign in' }).waitFor();
    await fits(page);
    await accessible(page);
    await picture(page, `narrow-sign-in-${colorScheme}`);
  });
}
