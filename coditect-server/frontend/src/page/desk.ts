/**
 * State shared by the panels of a session: the client, the socket, and the data that this page
 * stores in the editor state in addition to tabs and cursors.
 *
 * The server announces changes of parts but not of files. So a page that changes files sets a new
 * mark in the layout, and a page that saves a file stores its entity tag in the view state of the
 * tab; other pages of the session then reload.
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
  /** Directories expanded in the tree. */
  expanded: string[];
  /** Mark that changes whenever files are created, moved or deleted. */
  files: string;
}

export interface TabView {
  /** Scroll position, in lines. */
  top: number;
  /** Entity tag of the last saved content. */
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

  /** Changes tabs, cursors or the layout. The caller draws the result. */
  change(change: (state: EditorState) => EditorState): void {
    try {
      this.socket.change('editor', change);
    } catch (error) {
      notice(explain(error), 'bad');
    }
  }

  /** Changes only the layout. */
  changeLayout(change: Partial<Layout>): void {
    this.change((state) => ({ ...state, layout: { ...layoutOf(state), ...change } }));
  }

  /** Changes the tab of `path`. */
  changeTab(path: string, change: (tab: EditorTab) => EditorTab): void {
    this.change((state) => ({
      ...state,
      tabs: state.tabs.map((tab) => (tab.path === path ? change(tab) : tab)),
    }));
  }

  /** Announces that files were created, moved or deleted. */
  announceFiles(): void {
    this.changeLayout({ files: this.client.env.id() });
  }
}

/** Returns the layout, ignoring values of other clients with another shape. */
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

/** Returns whether `path` is `root` or below it. */
export function isWithin(path: string, root: string): boolean {
  return path === root || path.startsWith(`${root}/`);
}

export function parent(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf('/')));
}

export function base(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}
