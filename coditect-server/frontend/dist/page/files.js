import { all, ApiError, ConflictError } from '../client/index.js';
import { explain } from './account.js';
import { base, isWithin, layoutOf, parent } from './desk.js';
import { askText, confirm } from './dialogs.js';
import { button, h, notice } from './dom.js';
const MOST = 2_000;
export class FilesPanel {
    element;
    #desk;
    #handlers;
    #tree = h('div', { role: 'tree', class: 'tree', 'aria-label': 'Files' });
    #rest = h('p', { class: 'empty', hidden: true });
    #picker = h('input', {
        type: 'file',
        multiple: true,
        hidden: true,
        'aria-label': 'Files to upload',
    });
    #read = new Map();
    #actions;
    #expanded = new Set();
    #selected = null;
    #mark = '';
    constructor(desk, handlers) {
        this.#desk = desk;
        this.#handlers = handlers;
        const rename = button('Rename', () => this.#rename(), { 'aria-keyshortcuts': 'F2' });
        const remove = button('Delete', () => this.#remove(), { 'aria-keyshortcuts': 'Delete' });
        this.#actions = [rename, remove];
        this.#picker.addEventListener('change', () => {
            void this.#upload([...(this.#picker.files ?? [])], this.#directory());
            this.#picker.value = '';
        });
        this.#tree.addEventListener('keydown', (event) => this.#key(event));
        this.element = h('nav', { class: 'files', 'aria-labelledby': 'files-heading' }, h('h2', { id: 'files-heading' }, 'Files'), h('div', { class: 'tools', role: 'group', 'aria-label': 'Change files' }, button('New file', () => this.#make('file')), button('New folder', () => this.#make('directory')), button('Upload', () => this.#picker.click()), rename, remove), this.#picker, this.#tree, this.#rest);
        this.#droppable();
        this.draw();
    }
    async follow() {
        const { expanded, files } = layoutOf(this.#desk.editor);
        const is_other = files !== this.#mark || !this.#read.has('');
        this.#mark = files;
        this.#expanded = new Set(expanded);
        if (is_other)
            await this.reload();
        else
            await this.#readAll([...this.#expanded].filter((path) => !this.#read.has(path)));
    }
    async reload() {
        await this.#readAll(['', ...this.#expanded]);
    }
    draw() {
        const had_focus = this.#tree.contains(document.activeElement);
        const rows = this.#rows();
        const is_shown = rows.some(({ entry }) => entry.path === this.#selected);
        const focusable = is_shown ? this.#selected : rows[0]?.entry.path;
        this.#tree.replaceChildren(...rows.map((row) => this.#row(row, row.entry.path === focusable)));
        this.#tree.hidden = rows.length === 0;
        this.#rest.hidden = rows.length > 0;
        this.#rest.textContent = this.#read.has('')
            ? 'No files yet. Create one, or drop files here.'
            : 'Loading…';
        for (const action of this.#actions)
            action.disabled = !is_shown;
        if (had_focus)
            this.#focus();
    }
    select(path) {
        if (path === this.#selected)
            return;
        this.#selected = path;
        this.draw();
    }
    async #readAll(paths) {
        const read = async (path) => {
            try {
                const query = path === '' ? {} : { path };
                const found = await all((paging) => this.#desk.client.files.list(this.#desk.id, { ...query, ...paging }), MOST);
                if (!found.is_complete)
                    notice(`Only the first ${found.items.length} entries of ` +
                        `${path || 'the root folder'} are shown.`);
                this.#read.set(path, found.items);
            }
            catch (error) {
                this.#read.delete(path);
                const is_gone = error instanceof ApiError && (error.status === 404 || error.code === 'NOT_A_DIRECTORY');
                if (!is_gone && this.#desk.client.login.present)
                    notice(explain(error), 'bad');
            }
        };
        await Promise.all(paths.map(read));
        this.draw();
    }
    #rows() {
        const below = (directory, level) => {
            const entries = [...(this.#read.get(directory) ?? [])];
            const rank = ({ kind }) => (kind === 'directory' ? 0 : 1);
            entries.sort((a, b) => rank(a) - rank(b) || a.path.localeCompare(b.path));
            return entries.flatMap((entry, at) => [
                { entry, level, at: at + 1, of: entries.length },
                ...(this.#expanded.has(entry.path) ? below(entry.path, level + 1) : []),
            ]);
        };
        return below('', 1);
    }
    #row({ entry, level, at, of }, is_focusable) {
        const is_directory = entry.kind === 'directory';
        const row = h('div', {
            role: 'treeitem',
            class: `item ${entry.kind} level-${Math.min(level, 8)}`,
            'aria-level': level,
            'aria-posinset': at,
            'aria-setsize': of,
            'aria-expanded': is_directory ? String(this.#expanded.has(entry.path)) : null,
            'aria-selected': String(entry.path === this.#selected),
            tabindex: is_focusable ? 0 : -1,
            'data-path': entry.path,
            title: entry.path,
            onclick: () => this.#press(entry),
        }, h('span', { class: 'name' }, base(entry.path)));
        return row;
    }
    #press(entry) {
        this.#selected = entry.path;
        if (entry.kind === 'directory')
            this.#toggle(entry.path, !this.#expanded.has(entry.path));
        else
            this.#handlers.open(entry.path);
        this.draw();
        this.#focus();
    }
    #toggle(path, is_open) {
        if (is_open)
            this.#expanded.add(path);
        else
            this.#expanded.delete(path);
        this.#desk.changeLayout({ expanded: [...this.#expanded].sort() });
        if (is_open && !this.#read.has(path))
            void this.#readAll([path]);
        else
            this.draw();
    }
    #focus() {
        this.#tree.querySelector('[tabindex="0"]')?.focus();
    }
    #key(event) {
        const rows = this.#rows();
        const focused = event.target.dataset['path'];
        const at = rows.findIndex(({ entry }) => entry.path === focused);
        const row = rows[at];
        if (!row || event.ctrlKey || event.metaKey || event.altKey)
            return;
        const { entry, level } = row;
        const is_open = entry.kind === 'directory' && this.#expanded.has(entry.path);
        let target;
        if (event.key === 'ArrowDown')
            target = rows[at + 1]?.entry;
        else if (event.key === 'ArrowUp')
            target = rows[at - 1]?.entry;
        else if (event.key === 'Home')
            target = rows[0]?.entry;
        else if (event.key === 'End')
            target = rows.at(-1)?.entry;
        else if (event.key === 'ArrowRight' && entry.kind === 'directory' && !is_open)
            this.#toggle(entry.path, true);
        else if (event.key === 'ArrowRight' && is_open)
            target = rows[at + 1]?.level === level + 1 ? rows[at + 1]?.entry : undefined;
        else if (event.key === 'ArrowLeft' && is_open)
            this.#toggle(entry.path, false);
        else if (event.key === 'ArrowLeft')
            target = rows.find((row) => row.entry.path === parent(entry.path))?.entry;
        else if (event.key === 'Enter' || event.key === ' ')
            this.#press(entry);
        else if (event.key === 'F2') {
            this.#selected = entry.path;
            void this.#rename();
        }
        else if (event.key === 'Delete') {
            this.#selected = entry.path;
            void this.#remove();
        }
        else if (event.key.length === 1)
            target = this.#named(event.key, rows.map((row) => row.entry), at);
        else
            return;
        event.preventDefault();
        if (target) {
            this.#selected = target.path;
            this.draw();
            this.#focus();
        }
    }
    #named(letter, entries, at) {
        const order = [...entries.slice(at + 1), ...entries.slice(0, at + 1)];
        return order.find((entry) => base(entry.path).toLowerCase().startsWith(letter.toLowerCase()));
    }
    #entry(path) {
        return path === null
            ? undefined
            : this.#read.get(parent(path))?.find((entry) => entry.path === path);
    }
    #directory() {
        const entry = this.#entry(this.#selected);
        if (!entry)
            return '';
        return entry.kind === 'directory' ? entry.path : parent(entry.path);
    }
    async #make(kind) {
        const directory = this.#directory();
        const path = await askText({
            title: kind === 'file' ? 'New file' : 'New folder',
            label: 'Path',
            value: directory === '' ? '' : `${directory}/`,
            action: 'Create',
            fault: (path) => (path.endsWith('/') ? 'Enter a name.' : ''),
        });
        if (path === null)
            return;
        await this.#act(async () => {
            const { client, id } = this.#desk;
            const made = kind === 'file'
                ? (await client.files.write(id, path, '', 'absent')).value
                : await client.files.createDirectory(id, path);
            this.#reveal(made.path);
            if (kind === 'file')
                this.#handlers.open(made.path);
        });
    }
    async #rename() {
        const from = this.#entry(this.#selected)?.path;
        if (from === undefined)
            return;
        const to = await askText({
            title: `Rename or move ${base(from)}`,
            label: 'Path',
            value: from,
            action: 'Move',
        });
        if (to === null || to === from)
            return;
        await this.#act(async () => {
            const moved = await this.#desk.client.files.move(this.#desk.id, { from, to });
            this.#handlers.moved(from, moved.path);
            const renamed = [...this.#expanded].map((path) => isWithin(path, from) ? moved.path + path.slice(from.length) : path);
            this.#expanded = new Set(renamed);
            this.#reveal(moved.path);
        });
    }
    async #remove() {
        const entry = this.#entry(this.#selected);
        if (!entry)
            return;
        const unsaved = this.#handlers.unsaved(entry.path);
        const what = entry.kind === 'directory' ? 'and everything in it ' : '';
        const lost = unsaved === 0
            ? ''
            : ` Unsaved changes in ${unsaved === 1 ? '1 file' : `${unsaved} files`} will be lost.`;
        const is_sure = await confirm({
            title: `Delete ${base(entry.path)}?`,
            text: `${entry.path} ${what}will be deleted.${lost}`,
            action: 'Delete',
        });
        if (!is_sure)
            return;
        await this.#act(async () => {
            await this.#desk.client.files.delete(this.#desk.id, entry.path, entry.kind === 'directory');
            for (const path of [...this.#expanded])
                if (isWithin(path, entry.path))
                    this.#expanded.delete(path);
            this.#handlers.removed(entry.path);
            this.#selected = null;
        });
    }
    async #upload(files, directory) {
        if (files.length === 0)
            return;
        await this.#act(async () => {
            const { client, id } = this.#desk;
            for (const file of files) {
                const path = directory === '' ? file.name : `${directory}/${file.name}`;
                try {
                    await client.files.write(id, path, file, 'absent');
                }
                catch (error) {
                    if (!(error instanceof ConflictError))
                        throw error;
                    const text = `${path} already exists. Its present content is kept as an older version.`;
                    const is_sure = await confirm({
                        title: `Replace ${file.name}?`,
                        text,
                        action: 'Replace',
                    });
                    if (is_sure && error.current)
                        await client.files.write(id, path, file, { etag: error.current.etag });
                }
                this.#reveal(path);
            }
            notice(files.length === 1 ? `Uploaded ${files[0]?.name}.` : `Uploaded ${files.length} files.`);
        });
    }
    #reveal(path) {
        for (let directory = parent(path); directory !== ''; directory = parent(directory))
            this.#expanded.add(directory);
        this.#selected = path;
    }
    async #act(work) {
        try {
            await work();
        }
        catch (error) {
            notice(error instanceof ConflictError
                ? 'A file or folder with this name already exists.'
                : explain(error), 'bad');
        }
        this.#mark = this.#desk.client.env.id();
        this.#desk.changeLayout({ files: this.#mark, expanded: [...this.#expanded].sort() });
        await this.reload();
    }
    #droppable() {
        for (const event of ['dragover', 'drop']) {
            addEventListener(event, (dropped) => {
                if (dropped.dataTransfer?.types.includes('Files'))
                    dropped.preventDefault();
            });
        }
        const mark = (target) => {
            for (const marked of this.element.querySelectorAll('.target'))
                marked.classList.remove('target');
            const row = target instanceof Element ? target.closest('.item') : null;
            const path = row?.dataset['path'] ?? '';
            const directory = row === null || row.classList.contains('directory') ? path : parent(path);
            const shown = directory === ''
                ? this.element
                : this.#tree.querySelector(`[data-path="${CSS.escape(directory)}"]`);
            shown?.classList.add('target');
            return directory;
        };
        this.element.addEventListener('dragover', (event) => {
            if (!event.dataTransfer?.types.includes('Files'))
                return;
            event.preventDefault();
            mark(event.target);
        });
        const unmark = () => {
            for (const marked of [this.element, ...this.element.querySelectorAll('.target')])
                marked.classList.remove('target');
        };
        this.element.addEventListener('dragleave', unmark);
        this.element.addEventListener('drop', (event) => {
            event.preventDefault();
            const directory = mark(event.target);
            unmark();
            void this.#upload([...(event.dataTransfer?.files ?? [])], directory);
        });
    }
}
