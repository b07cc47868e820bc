/** The features of an atlas: searched, sorted, looked through. */

/** @import { Atlas, Query } from "./types.js" */
/** @import { Server } from "./server.mjs" */
/** @import { FeatureCell } from "./cell.mjs" */

import { featureCell } from "./cell.mjs";
import { fill, loadStyle, make, paced } from "./dom.mjs";
import { Grid } from "./grid.mjs";
import { Pages } from "./pages.mjs";
import { said } from "./server.mjs";
import { named, orderName, whole } from "./words.mjs";

loadStyle("list.css", import.meta.url);

const PAUSE = 60;
const SLOW = 200;

/** @typedef {{ feature: number, label: string | null }} Like a feature whose companions are listed */

export class List {
  /** @type {Atlas | null} */
  #atlas = null;
  /** @type {Like | null} */
  #like = null;
  /** @type {Pages | null} */
  #pages = null;
  /** @type {Pages | null} */
  #coming = null;
  #top = 0;
  /** Whether something is searched for, and the order without that. */
  #asking = true;
  #plain = "";
  heat = false;

  /** @param {Server} server @param {(feature: number) => void} open */
  constructor(server, open) {
    this.server = server;
    this.open = open;
    this.search = make("input", {
      class: "flx-search",
      type: "search",
      placeholder: "Search features",
      "aria-label": "Search features by what they are about, or by number",
      spellcheck: false,
      autocomplete: "off",
      maxLength: 200,
      oninput: paced(() => this.#ask(), PAUSE),
      onkeydown: (/** @type {KeyboardEvent} */ event) => this.#searchKey(event),
    });
    this.order = make("select", { class: "flx-order", "aria-label": "Sort by", onchange: () => this.#ask() });
    this.toggle = make(
      "button",
      {
        class: "flx-icon",
        type: "button",
        title: "Show where in the pictures the features are active",
        "aria-label": "Heat maps",
        "aria-pressed": "false",
        onclick: () => this.#toggleHeat(),
      },
      make("i", { class: "pi pi-sun", "aria-hidden": "true" }),
    );
    this.status = make("span", { class: "flx-status", role: "status" });
    this.only = make("div", { class: "flx-only" });
    this.note = make("div", { class: "flx-note", role: "alert" });
    this.grid = new Grid({
      label: "Features",
      cell: (index, element) => this.#cell(index, element),
      want: (first, last) => this.#pages?.want(first, last),
      open: (index) => this.#open(index),
    });
    this.element = make(
      "section",
      { class: "flx-list", "aria-label": "Features" },
      make(
        "div",
        { class: "flx-tools" },
        make("label", { class: "flx-field" }, make("i", { class: "pi pi-search", "aria-hidden": "true" }), this.search),
        make("div", { class: "flx-bar" }, this.order, this.status, this.toggle),
        this.only,
      ),
      this.note,
      this.grid.element,
    );
  }

  /** Show an atlas from its start. @param {Atlas} atlas */
  show(atlas) {
    if (atlas.id !== this.#atlas?.id) {
      this.#like = null;
      this.search.value = "";
    }
    this.#atlas = atlas;
    this.#orders();
    this.#ask();
  }

  /** List the companions of a feature. @param {Like | null} like */
  showLike(like) {
    this.#like = like;
    this.search.value = "";
    this.#orders();
    this.#ask();
  }

  /** Remember what is in sight, as an element that leaves the document forgets it. */
  leave() {
    this.#top = this.grid.element.scrollTop;
  }

  back() {
    this.grid.layout();
    this.grid.element.scrollTop = this.#top;
  }

  stop() {
    this.#pages?.stop();
    this.#coming?.stop();
  }

  get #text() {
    return this.search.value.trim();
  }

  /** Orders that make sense now; the one that was chosen before a search is there again after it. */
  #orders() {
    const atlas = this.#atlas;
    if (!atlas) return;
    if (!this.#asking) this.#plain = this.order.value;
    this.#asking = Boolean(this.#text || this.#like);
    const first = this.#like ? "coactive" : this.#text ? "relevance" : null;
    const special = new Set(["relevance", "coactive"]);
    const orders = [...new Set([...atlas.scores, ...atlas.orders])].filter((order) => !special.has(order));
    const names = this.#like ? ["coactive"] : first ? [first, ...orders] : orders;
    fill(
      this.order,
      names.map((name) => make("option", { value: name }, orderName(name))),
    );
    this.order.value = first ?? (names.includes(this.#plain) ? this.#plain : (names[0] ?? "number"));
    this.order.disabled = names.length < 2;
    fill(this.only, this.#like && this.#chip(this.#like));
  }

  /** @param {Like} like */
  #chip({ feature, label }) {
    const close = make("i", { class: "pi pi-times", "aria-hidden": "true" });
    return make(
      "button",
      { class: "flx-chip", type: "button", title: "Show all features again", onclick: () => this.showLike(null) },
      `Active together with ${named(feature, label)}`,
      close,
    );
  }

  /** Ask for the list anew; the former one stays until the new one is there. */
  #ask() {
    const atlas = this.#atlas;
    if (!atlas) return;
    if (this.#asking !== Boolean(this.#text || this.#like)) this.#orders();
    /** @type {Query} */
    const query = {
      atlas: atlas.id,
      text: this.#text || undefined,
      order: this.order.value,
      like: this.#like?.feature,
    };
    this.#coming?.stop();
    const pages = new Pages(
      (offset, limit, signal) => this.server.features({ ...query, offset, limit }, signal),
      () => this.#changed(pages),
      (error) => this.#failed(error),
    );
    this.#coming = pages;
    const slow = setTimeout(() => this.#coming === pages && this.element.classList.add("flx-slow"), SLOW);
    void pages.begin().then((good) => {
      clearTimeout(slow);
      if (this.#coming !== pages) return;
      this.element.classList.remove("flx-slow");
      this.#coming = null;
      if (good) this.#swap(pages, atlas);
    });
  }

  /** @param {Pages} pages @param {Atlas} atlas */
  #swap(pages, atlas) {
    this.#pages?.stop();
    this.#pages = pages;
    this.grid.reset(pages.count, atlas.size[0] / atlas.size[1]);
    this.#tell();
  }

  /** @param {Pages} pages */
  #changed(pages) {
    if (this.#pages !== pages) return;
    this.grid.refresh(pages.count);
    this.#tell();
  }

  /** Say how many there are, and what to do where there are none. */
  #tell() {
    const count = this.#pages?.count ?? 0;
    fill(this.status, `${whole(count)} ${count === 1 ? "feature" : "features"}`);
    const number = this.#number();
    const go = number !== null && this.#button(`Open feature ${number}`, () => this.open(number));
    if (count) return fill(this.note, go);
    if (!this.#text)
      return fill(
        this.note,
        make("p", null, this.#like ? "Nothing is active together with it." : "This atlas describes no feature."),
      );
    const clear = this.#button("Show all", () => this.clear());
    fill(this.note, make("p", null, `No label has “${this.#text}”.`), make("div", { class: "flx-row" }, go, clear));
  }

  /** @param {string} text @param {() => void} act */
  #button(text, act) {
    return make("button", { class: "flx-button", type: "button", onclick: act }, text);
  }

  clear() {
    this.search.value = "";
    this.#ask();
    this.search.focus();
  }

  /** @param {unknown} error */
  #failed(error) {
    fill(
      this.note,
      make("p", { class: "flx-wrong" }, said(error)),
      this.#button("Try again", () => this.#ask()),
    );
  }

  /** The feature whose number was typed. */
  #number() {
    const number = /^#?(\d{1,8})$/.exec(this.#text)?.[1];
    return number !== undefined && Number(number) < (this.#atlas?.n_features ?? 0) ? Number(number) : null;
  }

  /** @param {number} index @param {HTMLElement} element @returns {FeatureCell} */
  #cell(index, element) {
    const look = () => ({ row: this.#pages?.row(index), order: this.order.value, heat: this.heat });
    return featureCell(element, this.server, /** @type {Atlas} */ (this.#atlas), look);
  }

  /** @param {number} index */
  #open(index) {
    const row = this.#pages?.row(index);
    if (row) this.open(row.feature);
  }

  #toggleHeat() {
    this.heat = !this.heat;
    this.toggle.setAttribute("aria-pressed", String(this.heat));
    for (const cell of this.grid.cells()) /** @type {FeatureCell} */ (cell).heat();
  }

  /** @param {KeyboardEvent} event */
  #searchKey(event) {
    const number = this.#number();
    if (event.key === "ArrowDown") this.grid.focus(this.grid.current);
    else if (event.key === "Enter" && number !== null) this.open(number);
    else if (event.key === "Enter") this.grid.focus(0);
    else if (event.key === "Escape" && this.search.value) this.clear();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
