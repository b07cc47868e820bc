/** The features of the chosen tokens: looking at one lays its heat map over the picture, a press sends it on. */

import { draw, fill, make, style } from "../browser/dom.mjs";
import { named, percent } from "../browser/words.mjs";
import { smallThumbnail } from "./small_thumbnail.mjs";

/** @import { Server } from "../browser/server.mjs" */
/** @import { Seen } from "../browser/types.js" */

export class SeenList {
  /**
   * @param {Server} server
   * @param {{ onlook: (seen: Seen) => void, onsteer: (seen: Seen) => void, onmask: (seen: Seen) => void, onback: () => void }} on
   */
  constructor(server, on) {
    this.server = server;
    this.on = on;
    /** @type {HTMLButtonElement[][]} */
    this.rows = [];
    this.list = make("ol", { class: "flx-panel-seen", data: { captureWheel: "true" } });
    this.note = make("p", { class: "flx-panel-note", hidden: true });
    this.hint = make("p", { class: "flx-panel-hint", hidden: true }, "Press a feature to steer with it.");
    this.element = make("div", { class: "flx-panel-listing" }, this.list, this.note, this.hint);
    this.list.addEventListener("keydown", (event) => this.#key(event));
  }

  /** @param {Seen[]} features @param {string | null} atlas @param {number | null} current the one whose map is shown */
  show(features, atlas, current) {
    const held = this.list.contains(document.activeElement) ? this.#at() : null;
    const most = Math.max(...features.map((one) => Math.max(0, one.specific)), 0);
    this.rows = features.map((one) => this.#row(one, atlas, most));
    fill(this.list, features.map((one, place) => item(this.rows[place] ?? [], one.feature === current)));
    this.list.scrollTop = 0;
    this.say(features.length ? "" : "No feature is active here.");
    this.#reach(0);
    if (held) this.#focus(Math.min(held.row, features.length - 1), held.column);
  }

  /** A note in place of a list, or below it. @param {string} text @param {boolean} [instead] */
  say(text, instead = false) {
    this.note.hidden = !text;
    this.note.textContent = text;
    this.hint.hidden = !!text;
    if (instead) this.rows = [];
    if (instead) fill(this.list);
  }

  /** @param {number | null} feature */
  mark(feature) {
    for (const line of this.list.children) {
      line.classList.toggle("is-current", line instanceof HTMLElement && line.dataset["feature"] === String(feature));
    }
  }

  focus() {
    this.#focus(0, 0);
  }

  /** @param {Seen} seen @param {string | null} atlas @param {number} most */
  #row(seen, atlas, most) {
    const name = named(seen.feature, seen.label);
    const bar = make("span", { class: "flx-panel-bar", "aria-hidden": "true" });
    style(bar, { "--share": most > 0 ? Math.max(0, seen.specific) / most : 0 });
    const steer = make(
      "button",
      { type: "button", class: "flx-panel-steer", tabIndex: -1, title: `Steer with ${name}\n${figures(seen)}` },
      smallThumbnail(this.server, { atlas, feature: seen.feature, picture: seen.picture }),
      make(
        "span",
        { class: "flx-panel-name" },
        make("span", { class: seen.label ? "flx-panel-label" : "flx-panel-label is-plain" }, name),
        make("span", { class: "flx-panel-meta" }, `#${seen.feature}${strength(seen, " · ")}`),
        bar,
      ),
    );
    steer.setAttribute("aria-label", `Steer with feature ${seen.feature}${seen.label ? `, ${seen.label}` : ""}`);
    const mask = make(
      "button",
      { type: "button", class: "flx-panel-icon", tabIndex: -1, title: `Mask from ${name}` },
      maskIcon(),
    );
    mask.setAttribute("aria-label", `Mask from feature ${seen.feature}${seen.label ? `, ${seen.label}` : ""}`);
    steer.addEventListener("click", () => this.on.onsteer(seen));
    mask.addEventListener("click", () => this.on.onmask(seen));
    for (const button of [steer, mask]) {
      button.addEventListener("focus", () => this.on.onlook(seen));
      button.addEventListener("pointerenter", () => this.on.onlook(seen));
    }
    steer.dataset["feature"] = String(seen.feature);
    return [steer, mask];
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const at = this.#at();
    if (!at) return;
    if (event.key === "ArrowUp" && at.row === 0) this.on.onback();
    else if (event.key === "ArrowUp") this.#focus(at.row - 1, at.column);
    else if (event.key === "ArrowDown") this.#focus(at.row + 1, at.column);
    else if (event.key === "ArrowRight") this.#focus(at.row, 1);
    else if (event.key === "ArrowLeft") this.#focus(at.row, 0);
    else if (event.key === "Home") this.#focus(0, at.column);
    else if (event.key === "End") this.#focus(this.rows.length - 1, at.column);
    else if (event.key === "Escape") this.on.onback();
    else return;
    event.preventDefault();
  }

  /** Where the focus is. */
  #at() {
    for (const [row, buttons] of this.rows.entries()) {
      const column = buttons.findIndex((button) => button === document.activeElement);
      if (column >= 0) return { row, column };
    }
    return null;
  }

  /** @param {number} row @param {number} column */
  #focus(row, column) {
    const button = this.rows[row]?.[column];
    if (!button) return;
    this.#reach(row);
    button.focus({ preventScroll: true });
    button.closest("li")?.scrollIntoView({ block: "nearest" });
  }

  /** The Tab key comes to one row. @param {number} row */
  #reach(row) {
    for (const [place, buttons] of this.rows.entries()) {
      for (const button of buttons) button.tabIndex = place === row ? 0 : -1;
    }
  }
}

/** @param {HTMLButtonElement[]} buttons @param {boolean} current */
function item(buttons, current) {
  const feature = buttons[0]?.dataset["feature"];
  return make("li", { class: current ? "is-current" : "", data: { feature } }, ...buttons);
}

/** @param {Seen} seen */
function figures(seen) {
  return `Feature ${seen.feature}${strength(seen, ", ")}, active on ${percent(seen.area)} of what is chosen`;
}

/** @param {Seen} seen @param {string} before */
function strength({ strength }, before) {
  return strength === null ? "" : `${before}strength ${strength.toFixed(2)}`;
}

/** A picture with a part of it filled. */
function maskIcon() {
  return draw(
    "svg",
    { viewBox: "0 0 16 16", fill: "none", stroke: "currentColor", "stroke-width": 1.3, "aria-hidden": "true" },
    draw("rect", { x: 1.7, y: 1.7, width: 12.6, height: 12.6, rx: 2.5 }),
    draw("circle", { cx: 8, cy: 8, r: 3.4, fill: "currentColor", stroke: "none" }),
  );
}
