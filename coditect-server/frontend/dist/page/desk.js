import { isObject, } from '../client/index.js';
import { explain } from './account.js';
import { notice } from './dom.js';
export class Desk {
    client;
    id;
    socket;
    constructor(client, id, socket) {
        this.client = client;
        this.id = id;
        this.socket = socket;
    }
    get editor() {
        return this.socket.view('editor');
    }
    change(change) {
        try {
            this.socket.change('editor', change);
        }
        catch (error) {
            notice(explain(error), 'bad');
        }
    }
    changeLayout(change) {
        this.change((state) => ({ ...state, layout: { ...layoutOf(state), ...change } }));
    }
    changeTab(path, change) {
        this.change((state) => ({
            ...state,
            tabs: state.tabs.map((tab) => (tab.path === path ? change(tab) : tab)),
        }));
    }
    announceFiles() {
        this.changeLayout({ files: this.client.env.id() });
    }
}
export function layoutOf(state) {
    const layout = isObject(state.layout) ? state.layout : {};
    const expanded = Array.isArray(layout['expanded'])
        ? layout['expanded'].filter((path) => typeof path === 'string')
        : [];
    return { expanded, files: typeof layout['files'] === 'string' ? layout['files'] : '' };
}
export function viewOf(tab) {
    const view = isObject(tab.view_state) ? tab.view_state : {};
    return {
        top: typeof view['top'] === 'number' ? view['top'] : 0,
        etag: typeof view['etag'] === 'string' ? view['etag'] : null,
    };
}
export function isWithin(path, root) {
    return path === root || path.startsWith(`${root}/`);
}
export function parent(path) {
    return path.slice(0, Math.max(0, path.lastIndexOf('/')));
}
export function base(path) {
    return path.slice(path.lastIndexOf('/') + 1);
}
