import { h } from './dom.js';
export class MemoryPanel {
    #shown = h('pre', { tabindex: 0, 'aria-label': 'Agent memory as JSON' });
    element = h('section', { class: 'memory', 'aria-labelledby': 'memory-heading' }, h('h2', { id: 'memory-heading' }, 'Agent memory'), this.#shown);
    draw(memory) {
        const is_empty = Object.keys(memory).length === 0;
        this.#shown.classList.toggle('vacant', is_empty);
        this.#shown.textContent = is_empty ? 'The memory is empty.' : JSON.stringify(memory, null, 2);
    }
}
