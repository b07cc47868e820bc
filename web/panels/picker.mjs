/** Choose a feature from an atlas: a small page over the graph with a search. */

import { fill, make, paced, style } from "../browser/dom.mjs";
import { said, wasAborted } from "../browser/server.mjs";
import { named } from "../browser/words.mjs";
import { smallThumbnail } from "./small_thumbnail.mjs";

/** @import { Atlas, Row } from "../browser/types.js" */
/** @import { Host } from "./host.js" */

const PAGE = 48;
const TYPING_MILLISECONDS = 80;
const GAP = 6;
let made = 0;

/**
 * The feature that the user chooses, or null. @param {Host} host
 * @param {HTMLElement} beside what the picker opens at @param {Atlas} atlas @param {number} now
 * @returns {Promise<number | null>}
 */
export function pick(host, beside, atlas, now) {
  return new Promise((resolve) => new Picker(host, beside, atlas, now, resolve).open());
}

class Picker {
  /**
   * @param {Host} host @param {HTMLElement} beside @param {Atlas} atlas @param {number} now
   * @param {(feature: number | null) => void} done
   */
  constructor(host, beside, atlas, now, done) {
    this.host = host;
    this.beside = beside;
    this.atlas = atlas;
    this.now = now;
    this.done = done;
    /** @type {Row[]} */
    this.rows = [];
    this.more = false;
    this.at = -1;
    /** @type {AbortController | null} */
    this.asking = null;
    this.id = `flx-panel-picker-${++made}`;
    this.search = make("input", {
      type: "search",
      placeholder: "Search labels, or a number",
      autocomplete: "off",
      spellcheck: false,
      role: "combobox",
      "aria-label": "Search features",
      "aria-expanded": "true",
      "aria-controls": this.id,
    });
    this.grid = make("div", { class: "flx-panel-choices", role: "listbox", id: this.id, "aria-label": "Features" });
    this.note = make("p", { class: "flx-panel-note", role: "status" });
    this.element = make(
      "div",
      { class: "flx-panel-picker", popover: "auto", role: "dialog", "aria-label": "Choose a feature" },
      this.search,
      this.grid,
      this.note,
    );
    this.#listen();
  }

  #listen() {
    const soon = paced(() => void this.#ask(true), TYPING_MILLISECONDS);
    this.search.addEventListener("input", soon);
    this.element.addEventListener("keydown", (event) => this.#key(event));
    this.element.addEventListener("toggle", (event) => {
      if (/** @type {ToggleEvent} */ (event).newState === "closed") this.#close(null);
    });
    this.grid.addEventListener("scroll", () => {
      const { scrollTop, clientHeight, scrollHeight } = this.grid;
      if (this.more && !this.asking && scrollTop + 2 * clientHeight > scrollHeight) void this.#ask(false);
    });
  }

  open() {
    document.body.append(this.element);
    this.element.showPopover();
    this.#place();
    this.search.focus();
    void this.#ask(true);
  }

  /** Below what it belongs to, or above where there is more room. */
  #place() {
    const anchor = this.beside.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.element;
    const below = innerHeight - anchor.bottom >= height + GAP || anchor.top < height + GAP;
    const top = below ? Math.min(anchor.bottom + GAP, innerHeight - height - GAP) : anchor.top - height - GAP;
    const left = Math.min(anchor.left, innerWidth - width - GAP);
    style(this.element, { top: `${Math.max(GAP, top)}px`, left: `${Math.max(GAP, left)}px` });
  }

  /** @param {boolean} anew */
  async #ask(anew) {
    this.asking?.abort();
    const asking = new AbortController();
    this.asking = asking;
    const text = this.search.value.trim();
    const query = {
      atlas: this.atlas.id,
      ...(text ? { text, order: "relevance" } : { order: "number" }),
      offset: anew ? 0 : this.rows.length,
      limit: PAGE,
    };
    try {
      const { features, more } = await this.host.server.features(query, asking.signal);
      if (anew) this.rows = [];
      this.more = more;
      this.#add(features, anew);
    } catch (error) {
      if (wasAborted(error)) return;
      this.note.textContent = said(error);
    }
    if (this.asking === asking) this.asking = null;
  }

  /** @param {Row[]} features @param {boolean} anew */
  #add(features, anew) {
    const begin = this.rows.length;
    this.rows.push(...features);
    const choices = features.map((row, place) => this.#choice(row, begin + place));
    if (anew) fill(this.grid, choices);
    else this.grid.append(...choices);
    this.note.textContent = this.rows.length ? "" : "No feature has such a label.";
    if (anew) {
      this.grid.scrollTop = 0;
      this.#go(this.search.value.trim() && this.rows.length ? 0 : -1);
    }
  }

  /** @param {Row} row @param {number} place */
  #choice(row, place) {
    const choice = make(
      "div",
      {
        class: `flx-panel-choice${row.feature === this.now ? " is-now" : ""}`,
        role: "option",
        id: `${this.id}-${place}`,
        "aria-selected": "false",
        title: named(row.feature, row.label),
      },
      smallThumbnail(this.host.server, { atlas: this.atlas.id, feature: row.feature, picture: row.picture }),
      make("span", { class: `flx-panel-label${row.label ? "" : " is-plain"}` }, named(row.feature, row.label)),
      make("span", { class: "flx-panel-meta" }, row.label ? `#${row.feature}` : "no label"),
    );
    choice.addEventListener("click", () => this.#close(row.feature));
    return choice;
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    // keys here are not for the graph
    event.stopPropagation();
    if (event.key === "Enter") {
      const row = this.rows[this.at];
      if (row) this.#close(row.feature);
      return;
    }
    const columns = getComputedStyle(this.grid).gridTemplateColumns.split(" ").length;
    /** @type {Record<string, number | undefined>} */
    const steps = { ArrowDown: this.at < 0 ? 1 : columns, ArrowUp: -columns, ArrowRight: 1, ArrowLeft: -1 };
    const step = steps[event.key];
    // left and right are for the text until something is marked
    if (!step || (this.at < 0 && event.key !== "ArrowDown")) return;
    event.preventDefault();
    this.#go(Math.min(this.at + step, this.rows.length - 1));
  }

  /** @param {number} to */
  #go(to) {
    this.grid.children[this.at]?.setAttribute("aria-selected", "false");
    this.at = Math.max(-1, to);
    const choice = this.grid.children[this.at];
    choice?.setAttribute("aria-selected", "true");
    choice?.scrollIntoView({ block: "nearest" });
    if (choice) this.search.setAttribute("aria-activedescendant", choice.id);
    else this.search.removeAttribute("aria-activedescendant");
  }

  /** @param {number | null} feature */
  #close(feature) {
    this.asking?.abort();
    const { done } = this;
    this.done = () => {};
    this.element.remove();
    if (feature !== null || document.activeElement === document.body) this.beside.focus({ preventScroll: true });
    done(feature);
  }
}
