/** A picture of a run on which tokens are chosen, by pointer or keys, and over which a heat map is laid. */

import { make, style } from "../browser/dom.mjs";
import { box, described, moved, one, tokenAt } from "./tokens.mjs";

/** @import { Box, Choice, Grid, Token } from "./tokens.mjs" */

const KEYS = "Arrow keys move over it, Shift and arrow keys widen the choice, Escape takes it back, Enter goes on to the features.";

export class PictureField {
  /**
   * @param {{ onchoose: (area: Box | null, settled: boolean) => void, onenter: () => void, onturn: (by: number) => void }} on
   *   a choice is `settled` once the pointer or key is let go
   */
  constructor(on) {
    this.on = on;
    /** @type {Grid} */
    this.grid = [1, 1];
    /** @type {Choice | null} */
    this.choice = null;
    this.image = make("img", { alt: "", draggable: false, class: "flx-panel-picture" });
    this.map = make("img", { alt: "", draggable: false, class: "flx-panel-map", hidden: true });
    this.marked = make("div", { class: "flx-panel-chosen", hidden: true });
    this.under = make("div", { class: "flx-panel-under", hidden: true });
    this.caption = make("div", { class: "flx-panel-caption", hidden: true });
    this.missing = make("p", { class: "flx-panel-missing", hidden: true }, "No picture of this run");
    this.element = make(
      "div",
      { class: "flx-panel-field", tabIndex: 0, role: "application", "aria-roledescription": "picture" },
      ...[this.image, this.map, this.under, this.marked, this.caption, this.missing],
    );
    this.image.addEventListener("error", () => (this.missing.hidden = !this.image.src));
    this.image.addEventListener("load", () => this.#loaded());
    this.map.addEventListener("load", () => (this.map.hidden = false));
    this.map.addEventListener("error", () => (this.map.hidden = true));
    this.element.addEventListener("keydown", (event) => this.#key(event));
    this.#pointer();
  }

  /** @param {string} url @param {Grid} grid @param {string} name */
  show(url, grid, name) {
    this.grid = grid;
    this.missing.hidden = true;
    this.element.setAttribute("aria-label", `${name}, ${grid[0]} by ${grid[1]} tokens. ${KEYS}`);
    style(this.element, { "--tokens-down": grid[0], "--tokens-across": grid[1] });
    if (!this.image.naturalWidth) style(this.element, { "aspect-ratio": `${grid[1]} / ${grid[0]}` });
    if (this.image.getAttribute("src") !== url) this.image.src = url;
    this.choose(null);
  }

  /** Lay a heat map over; null takes it away. @param {string | null} url @param {string} [caption] */
  lay(url, caption = "") {
    this.caption.hidden = !caption || url === null;
    this.caption.textContent = caption;
    if (url === null) {
      this.map.hidden = true;
      this.map.removeAttribute("src");
    } else if (this.map.getAttribute("src") !== url) {
      this.map.src = url;
    }
  }

  /** @param {Choice | null} choice */
  choose(choice) {
    this.choice = choice;
    const area = choice && box(choice);
    this.marked.hidden = !area;
    if (area) this.#outline(this.marked, area);
    return area;
  }

  /** What is chosen, to read. */
  get said() {
    return described(this.choice && box(this.choice));
  }

  #loaded() {
    this.missing.hidden = true;
    style(this.element, { "aspect-ratio": `${this.image.naturalWidth} / ${this.image.naturalHeight}` });
  }

  /** @param {HTMLElement} element @param {Box} area */
  #outline(element, { top, left, bottom, right }) {
    const [rows, columns] = this.grid;
    style(element, {
      top: `${(100 * top) / rows}%`,
      left: `${(100 * left) / columns}%`,
      height: `${(100 * (bottom - top)) / rows}%`,
      width: `${(100 * (right - left)) / columns}%`,
    });
  }

  /** @param {PointerEvent} event @returns {Token} */
  #token(event) {
    // as it is on the screen: the graph may be zoomed
    const place = this.element.getBoundingClientRect();
    return tokenAt((event.clientY - place.top) / place.height, (event.clientX - place.left) / place.width, this.grid);
  }

  #pointer() {
    let dragged = false;
    this.element.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.preventDefault();
      this.element.focus({ preventScroll: true });
      this.element.setPointerCapture(event.pointerId);
      dragged = true;
      const token = this.#token(event);
      const choice = event.shiftKey && this.choice ? { anchor: this.choice.anchor, head: token } : one(token);
      this.on.onchoose(this.choose(choice), false);
    });
    this.element.addEventListener("pointermove", (event) => {
      const token = this.#token(event);
      this.under.hidden = dragged;
      this.#outline(this.under, box(one(token)));
      const head = this.choice?.head;
      if (!dragged || !this.choice || (head?.[0] === token[0] && head[1] === token[1])) return;
      this.on.onchoose(this.choose({ anchor: this.choice.anchor, head: token }), false);
    });
    const end = () => {
      if (dragged) this.on.onchoose(this.choice && box(this.choice), true);
      dragged = false;
    };
    this.element.addEventListener("pointerup", end);
    this.element.addEventListener("pointercancel", end);
    this.element.addEventListener("pointerleave", () => (this.under.hidden = true));
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const choice = moved(this.choice, event.key, event.shiftKey, this.grid);
    if (choice) this.on.onchoose(this.choose(choice), true);
    else if (event.key === "Escape") this.on.onchoose(this.choose(null), true);
    else if (event.key === "Enter") this.on.onenter();
    else if (event.key === "PageUp") this.on.onturn(-1);
    else if (event.key === "PageDown") this.on.onturn(1);
    else return;
    event.preventDefault();
  }
}
