/**
 * What the panels of a session share: the client, the socket, and what this page keeps in the editor's
 * state beside tabs and cursors.
 *
 * The server announces changes of parts, not of files. So whoever changes files here says so in the layout,
 * with a mark that is new each time, and whoever saves one puts its new tag into the tab's view state: the
 * other pages on this session look again.
 */

import {
  isObject,
  type Client,
  type EditorState,
  type EditorTab,
  type Json,
  type SessionSocket,
} from '../client/index.js';
import { explain } from './account.js';
import { notice } from './dom.js';

export interface Layout {
  /** The directories that are open in the tree. */
  expanded: string[];
  /** Another one each time files were made, moved or deleted. */
  files: string;
}

export interface TabView {
  /** How far the text is scrolled down, in lines. */
  top: number;
  /** The tag of the content that was last saved. */
  etag: string | null;
}

export class Desk {
  readonly client: Client;
  readonly id: string;
  readonly socket: SessionSocket;

  constructor(client: Client, id: string, socket: SessionSocket) {
    this.client = client;
    this.id = id;
    this.socket = socket;
  }

  get editor(): EditorState {
    return this.socket.view('editor');
  }

  /** Changes tabs, cursors or the layout. What comes of it is for the caller to draw. */
  change(change: (state: EditorState) => EditorState): void {
    try {
      this.socket.change('editor', change);
    } catch (error) {
      notice(explain(error), 'bad');
    }
  }

  /** The same for the layout alone. */
  changeLayout(change: Partial<Layout>): void {
    this.change((state) => ({ ...state, layout: { ...layoutOf(state), ...change } }));
  }

  /** The tab of `path`, somewhat different. */
  changeTab(path: string, change: (tab: EditorTab) => EditorTab): void {
    this.change((state) => ({
      ...state,
      tabs: state.tabs.map((tab) => (tab.path === path ? change(tab) : tab)),
    }));
  }

  /** Files were made, moved or deleted. */
  announceFiles(): void {
    this.changeLayout({ files: this.client.world.id() });
  }
}

/** Whatever another client may have put there, in the shape that this page has it. */
export function layoutOf(state: EditorState): Layout {
  const layout: Record<string, Json> = isObject(state.layout) ? state.layout : {};
  const expanded = Array.isArray(layout['expanded'])
    ? layout['expanded'].filter((path) => typeof path === 'string')
    : [];
  return { expanded, files: typeof layout['files'] === 'string' ? layout['files'] : '' };
}

export function viewOf(tab: EditorTab): TabView {
  const view: Record<string, Json> = isObject(tab.view_state) ? tab.view_state : {};
  return {
    top: typeof view['top'] === 'number' ? view['top'] : 0,
    etag: typeof view['etag'] === 'string' ? view['etag'] : null,
  };
}

/** Whether `path` is `root` or lies below it. */
export function isWithin(path: string, root: string): boolean {
  return path === root || path.startsWith(`${root}/`);
}

export function parent(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf('/')));
}

export function base(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}
