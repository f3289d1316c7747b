/**
 * The page: login state and routing.
 *
 * `#/sessions/ID` is a session, `#/invitation/TOKEN` an invitation; anything else is the list of
 * sessions. Without a login, the login form comes first.
 */

import { Client } from '../client/index.js';
import { account, explain } from './account.js';
import { button, h, notice } from './dom.js';
import { home } from './home.js';
import { Workspace } from './workspace.js';

const client = new Client();
const header = part('header');
const main = part('main');
const connection = h('span', { id: 'connection', role: 'status', 'aria-live': 'polite' });
const crumb = h('span', { class: 'crumb' });
let workspace: Workspace | null = null;

header.append(
  h('a', { href: '#/', class: 'brand', 'aria-label': 'Coditect, all sessions' }, 'Coditect'),
  crumb,
  connection,
  button('Sign out', () => signOut(), { class: 'quiet' }),
);

function draw(): void {
  void workspace?.close();
  workspace = null;
  say('', true);
  title(null);
  const is_in = client.login.present;
  header.hidden = !is_in;
  if (!is_in) {
    main.replaceChildren(account(client));
    return;
  }
  const invitation = /^#\/invitation\/(cin_[A-Za-z0-9_-]+)$/.exec(location.hash)?.[1];
  if (invitation !== undefined) {
    location.hash = '#/';
    void client.tenant.acceptInvitation(invitation).then(
      () => notice('You have joined the tenant.'),
      (error: unknown) => notice(explain(error), 'bad'),
    );
  }
  const id = /^#\/sessions\/([0-9a-fA-F-]{36})$/.exec(location.hash)?.[1];
  if (id === undefined) {
    main.replaceChildren(home(client));
    return;
  }
  workspace = new Workspace(client, id, {
    title,
    connection: say,
    gone: () => {
      location.hash = '#/';
    },
  });
  main.replaceChildren(workspace.element);
}

/** Draws the page for the address and moves the focus to it. */
function turn(): void {
  draw();
  const first = main.querySelector<HTMLElement>('[autofocus]') ?? main;
  first.focus({ preventScroll: true });
}

function say(text: string, is_well: boolean): void {
  if (connection.textContent !== text) connection.textContent = text;
  connection.className = is_well ? 'well' : 'ill';
}

function title(name: string | null): void {
  crumb.textContent = name ?? '';
  document.title = name === null ? 'Coditect' : `${name} · Coditect`;
}

async function signOut(): Promise<void> {
  // Saves unsaved text as drafts while there is still a login.
  await workspace?.close();
  workspace = null;
  const is_confirmed = await client.auth.logout();
  if (!is_confirmed) notice('You are signed out here, but the server did not confirm it.', 'bad');
}

function part(id: string): HTMLElement {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`missing element #${id}`);
  return element;
}

client.login.onChange((change) => {
  if (change === 'out') notice('You are signed out.');
  turn();
});
// The address selects the session, so the skip link must not change it.
document.querySelector('.skip')?.addEventListener('click', (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener('hashchange', turn);
draw();
main.querySelector<HTMLElement>('[autofocus]')?.focus();
