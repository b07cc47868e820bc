/** A grid of any length of which only the rows in sight are in the document. */

import { make, style } from "./dom.mjs";

const NARROWEST = 116;
const GAP = 10;
const MARGIN = 12;
const TEXT = 58;
const AHEAD = 2;

/** @typedef {{ fill(): boolean, stop(): void }} Cell `fill` shows what is known by now, and says whether that is all */

/**
 * @typedef {object} Source
 * @property {string} label what a screen reader calls the grid
 * @property {(index: number, element: HTMLElement) => Cell} cell
 * @property {(first: number, last: number) => void} want these are in sight
 * @property {(index: number, event: Event) => void} open
 */

/** @typedef {{ element: HTMLElement, cells: { element: HTMLElement, cell: Cell, full: boolean }[] }} Line */

export class Grid {
  /** @type {Map<number, Line>} */
  #lines = new Map();
  #columns = 1;
  #width = 0;
  #height = 1;
  #queued = 0;
  #ratio = 1;
  /** The cell that the keyboard is on. */
  current = 0;
  count = 0;

  /** @param {Source} source */
  constructor(source) {
    this.source = source;
    this.space = make("div", { class: "flx-space", role: "presentation" });
    this.element = make(
      "div",
      { class: "flx-grid", role: "grid", "aria-label": source.label, tabIndex: -1 },
      this.space,
    );
    this.element.addEventListener("scroll", () => this.#soon(), { passive: true });
    this.element.addEventListener("keydown", (event) => this.#key(event));
    this.element.addEventListener("click", (event) => this.#click(event));
    this.element.addEventListener("focusin", (event) => this.#focused(event));
    new ResizeObserver(() => this.layout()).observe(this.element);
  }

  /** Show another list from its start. @param {number} count @param {number} ratio height of a picture by its width */
  reset(count, ratio) {
    this.#clear();
    this.#ratio = ratio;
    this.count = count;
    this.current = 0;
    this.element.scrollTop = 0;
    this.layout();
  }

  /** More is known: fill cells that wait. @param {number} count */
  refresh(count) {
    if (count !== this.count) {
      this.count = count;
      this.layout();
    }
    for (const { cells } of this.#lines.values()) {
      for (const one of cells) one.full ||= one.cell.fill();
    }
  }

  /** Cells in the document, for what acts on all of them. */
  *cells() {
    for (const { cells } of this.#lines.values()) for (const { cell } of cells) yield cell;
  }

  /** Bring a cell into sight and the keyboard onto it. @param {number} index */
  focus(index) {
    if (!this.count) return this.element.focus();
    this.current = Math.max(0, Math.min(index, this.count - 1));
    const top = Math.floor(this.current / this.#columns) * this.#height;
    const { scrollTop, clientHeight } = this.element;
    if (top < scrollTop) this.element.scrollTop = top;
    else if (top + this.#height + MARGIN > scrollTop + clientHeight) {
      this.element.scrollTop = top + this.#height + MARGIN - clientHeight;
    }
    this.#draw();
    this.#at(this.current)?.focus({ preventScroll: true });
  }

  /** Measure again, as the panel may have another size. */
  layout() {
    const width = this.element.clientWidth - 2 * MARGIN;
    if (width <= 0) return;
    const columns = Math.max(1, Math.floor((width + GAP) / (NARROWEST + GAP)));
    this.#width = (width - (columns - 1) * GAP) / columns;
    if (columns !== this.#columns) this.#clear();
    this.#columns = columns;
    this.#height = Math.round(this.#width * this.#ratio) + TEXT + GAP;
    style(this.space, { height: `${Math.ceil(this.count / columns) * this.#height + MARGIN}px` });
    this.element.setAttribute("aria-rowcount", String(Math.ceil(this.count / columns)));
    this.element.setAttribute("aria-colcount", String(columns));
    for (const [row, { element }] of this.#lines) this.#place(row, element);
    this.#draw();
  }

  #soon() {
    this.#queued ||= requestAnimationFrame(() => {
      this.#queued = 0;
      this.#draw();
    });
  }

  #draw() {
    const { scrollTop, clientHeight } = this.element;
    if (!clientHeight) return;
    const rows = Math.ceil(this.count / this.#columns);
    const first = Math.max(0, Math.floor(scrollTop / this.#height) - AHEAD);
    const last = Math.min(rows - 1, Math.floor((scrollTop + clientHeight) / this.#height) + AHEAD);
    // the row that the keyboard is on stays, or the focus would be lost with it
    const kept = this.element.contains(document.activeElement) ? Math.floor(this.current / this.#columns) : -1;
    for (const [row, line] of this.#lines) {
      if ((row < first || row > last) && row !== kept) this.#drop(row, line);
    }
    for (let row = first; row <= last; row++) if (!this.#lines.has(row)) this.#add(row);
    this.#tabStop(first * this.#columns, last * this.#columns);
    this.source.want(first * this.#columns, (last + 1) * this.#columns - 1);
  }

  /** @param {number} row */
  #add(row) {
    const element = make("div", { class: "flx-line", role: "row", "aria-rowindex": row + 1 });
    const from = row * this.#columns;
    const cells = [];
    for (let index = from; index < Math.min(from + this.#columns, this.count); index++) {
      const at = make("div", {
        class: "flx-cell",
        role: "gridcell",
        tabIndex: -1,
        data: { index: String(index) },
        "aria-colindex": index - from + 1,
      });
      const cell = this.source.cell(index, at);
      cells.push({ element: at, cell, full: cell.fill() });
      element.append(at);
    }
    this.#lines.set(row, { element, cells });
    this.#place(row, element);
    const after = [...this.#lines.keys()].filter((one) => one > row).sort((one, other) => one - other)[0];
    this.space.insertBefore(element, (after !== undefined && this.#lines.get(after)?.element) || null);
  }

  /** @param {number} row @param {HTMLElement} element */
  #place(row, element) {
    style(element, {
      transform: `translateY(${row * this.#height + MARGIN / 2}px)`,
      "grid-template-columns": `repeat(${this.#columns}, ${this.#width}px)`,
      height: `${this.#height - GAP}px`,
    });
  }

  /** @param {number} row @param {Line} line */
  #drop(row, { element, cells }) {
    for (const { cell } of cells) cell.stop();
    element.remove();
    this.#lines.delete(row);
  }

  #clear() {
    for (const [row, line] of this.#lines) this.#drop(row, line);
  }

  /**
   * One cell can be reached by Tab: the current one, or the first in sight.
   * @param {number} first @param {number} last
   */
  #tabStop(first, last) {
    const seen = this.current >= first && this.current < last + this.#columns;
    const stop = seen ? this.current : first;
    for (const { cells } of this.#lines.values()) {
      for (const { element } of cells) element.tabIndex = Number(element.dataset.index) === stop ? 0 : -1;
    }
  }

  /** @param {number} index */
  #at(index) {
    return this.#lines.get(Math.floor(index / this.#columns))?.cells[index % this.#columns]?.element;
  }

  /** @param {Event} event */
  #indexOf(event) {
    const cell = /** @type {Element} */ (event.target).closest(".flx-cell");
    return cell instanceof HTMLElement ? Number(cell.dataset.index) : -1;
  }

  /** @param {Event} event */
  #focused(event) {
    const index = this.#indexOf(event);
    if (index >= 0) this.current = index;
  }

  /** @param {Event} event */
  #click(event) {
    const index = this.#indexOf(event);
    if (index >= 0) this.source.open(index, event);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const index = this.#indexOf(event);
    if (index < 0 || event.altKey || event.metaKey) return;
    const page = Math.max(1, Math.floor(this.element.clientHeight / this.#height)) * this.#columns;
    /** @type {Record<string, number>} */
    const moves = {
      ArrowRight: index + 1,
      ArrowLeft: index - 1,
      ArrowDown: index + this.#columns,
      ArrowUp: index - this.#columns,
      PageDown: index + page,
      PageUp: index - page,
      Home: 0,
      End: this.count - 1,
    };
    const to = moves[event.key];
    if (to !== undefined) {
      if ((to >= 0 && to < this.count) || event.key.startsWith("Page")) this.focus(to);
    } else if (event.key === "Enter" || event.key === " ") this.source.open(index, event);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
