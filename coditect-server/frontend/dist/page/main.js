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
let workspace = null;
header.append(h('a', { href: '#/', class: 'brand', 'aria-label': 'Coditect, all sessions' }, 'Coditect'), crumb, connection, button('Sign out', () => signOut(), { class: 'quiet' }));
function draw() {
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
        void client.tenant.acceptInvitation(invitation).then(() => notice('You have joined the tenant.'), (error) => notice(explain(error), 'bad'));
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
function turn() {
    draw();
    const first = main.querySelector('[autofocus]') ?? main;
    first.focus({ preventScroll: true });
}
function say(text, is_well) {
    if (connection.textContent !== text)
        connection.textContent = text;
    connection.className = is_well ? 'well' : 'ill';
}
function title(name) {
    crumb.textContent = name ?? '';
    document.title = name === null ? 'Coditect' : `${name} · Coditect`;
}
async function signOut() {
    await workspace?.close();
    workspace = null;
    const is_confirmed = await client.auth.logout();
    if (!is_confirmed)
        notice('You are signed out here, but the server did not confirm it.', 'bad');
}
function part(id) {
    const element = document.getElementById(id);
    if (element === null)
        throw new Error(`missing element #${id}`);
    return element;
}
client.login.onChange((change) => {
    if (change === 'out')
        notice('You are signed out.');
    turn();
});
document.querySelector('.skip')?.addEventListener('click', (event) => {
    event.preventDefault();
    main.focus();
});
addEventListener('hashchange', turn);
draw();
main.querySelector('[autofocus]')?.focus();
