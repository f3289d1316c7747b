import { all } from '../client/index.js';
import { explain } from './account.js';
import { askText, confirm } from './dialogs.js';
import { button, field, h, notice, time } from './dom.js';
export function home(client) {
    const sessions = h('ul', { class: 'cards', 'aria-label': 'Sessions' });
    const devices = h('ul', { class: 'cards', 'aria-label': 'Signed-in devices' });
    const others = button('Sign out all others', () => endOthers(), { hidden: true });
    const act = async (work) => {
        try {
            await work();
        }
        catch (error) {
            notice(explain(error), 'bad');
        }
        await load();
    };
    const load = async () => {
        try {
            const [mine, where] = await Promise.all([
                all((paging) => client.sessions.list(paging), 1_000),
                all((paging) => client.devices.list(paging), 1_000),
            ]);
            sessions.replaceChildren(...mine.items.map(card));
            if (mine.items.length === 0)
                sessions.append(h('li', { class: 'empty' }, 'No sessions yet. Create one above.'));
            devices.replaceChildren(...where.items.map(device));
            others.hidden = where.items.length < 2;
        }
        catch (error) {
            if (client.login.present)
                notice(explain(error), 'bad');
        }
    };
    const card = (session) => h('li', {}, h('div', { class: 'what' }, h('a', { href: `#/sessions/${session.id}` }, session.name), h('p', { class: 'muted' }, session.workspace_path ?? 'Own files', ' · last opened ', time(session.last_accessed_at))), button('Rename', () => rename(session), { 'aria-label': `Rename ${session.name}` }), button('Delete', () => remove(session), { 'aria-label': `Delete ${session.name}` }));
    const rename = async (session) => {
        const name = await askText({
            title: 'Rename the session',
            label: 'Name',
            value: session.name,
            action: 'Rename',
        });
        if (name !== null)
            await act(() => client.sessions.update(session.id, { name }));
    };
    const remove = async (session) => {
        const files = session.workspace_path
            ? '. The files of its workspace are kept.'
            : ', and all its files.';
        const text = `“${session.name}” is deleted with its tabs, terminals and drafts${files}`;
        const is_sure = await confirm({ title: 'Delete the session?', text, action: 'Delete' });
        if (is_sure)
            await act(() => client.sessions.delete(session.id));
    };
    const device = (device) => h('li', {}, h('div', { class: 'what' }, h('span', {}, device.name ?? describe(device.user_agent), device.current ? h('strong', { class: 'badge' }, 'this device') : null), h('p', { class: 'muted' }, device.ip ?? 'unknown address', ' · last used ', time(device.last_used_at))), device.current
        ? null
        : button('Sign out', () => act(() => client.devices.revoke(device.id)), {
            'aria-label': `Sign out ${describe(device.user_agent)}`,
        }));
    const endOthers = async () => {
        const text = 'You will have to sign in again on every other device.';
        const is_sure = await confirm({
            title: 'Sign out all other devices?',
            text,
            action: 'Sign out all others',
        });
        if (is_sure)
            await act(() => client.devices.revokeOthers());
    };
    const name = field('Name', { name: 'name', required: true, autocomplete: 'off' });
    const path = field('Workspace folder (optional)', {
        name: 'workspace_path',
        placeholder: '/workspace/project',
        autocomplete: 'off',
        spellcheck: 'false',
    });
    const create = async () => {
        const workspace_path = path.input.value.trim();
        const wanted = { name: name.input.value.trim() };
        try {
            const made = await client.sessions.create(workspace_path === '' ? wanted : { ...wanted, workspace_path });
            location.hash = `#/sessions/${made.id}`;
        }
        catch (error) {
            notice(explain(error), 'bad');
        }
    };
    const form = h('form', {
        class: 'row',
        onsubmit: (event) => {
            event.preventDefault();
            void create();
        },
    }, name.row, path.row, h('button', { class: 'main' }, 'New session'));
    void load();
    return h('div', { class: 'home' }, h('h1', {}, 'Your sessions'), form, sessions, h('div', { class: 'heading' }, h('h2', {}, 'Signed-in devices'), others), devices);
}
function describe(agent) {
    if (agent === null)
        return 'Unknown program';
    const browser = /(Firefox|Edg|OPR|Chrome|Safari)\/\d+/.exec(agent)?.[1];
    const system = /(Windows|Android|iPhone|iPad|Mac OS X|Linux)/.exec(agent)?.[1];
    const names = { Edg: 'Edge', OPR: 'Opera', 'Mac OS X': 'macOS' };
    if (!browser)
        return agent.slice(0, 60);
    return `${names[browser] ?? browser}${system ? ` on ${names[system] ?? system}` : ''}`;
}
