/** Which picture of a batch is looked at: a strip of small ones. */

import { fill, make } from "../browser/dom.mjs";

/** @import { Server } from "../browser/server.mjs" */
/** @import { View } from "../browser/types.js" */

/** @typedef {{ view: View, picture: number, button: HTMLButtonElement }} Entry */

export class Batch {
  /** @param {Server} server @param {(view: View, picture: number) => void} onchoose */
  constructor(server, onchoose) {
    this.server = server;
    this.onchoose = onchoose;
    /** @type {Entry[]} */
    this.entries = [];
    this.at = 0;
    this.element = make("div", {
      class: "flx-panel-batch",
      role: "radiogroup",
      "aria-label": "Picture of the batch",
      data: { captureWheel: "true" },
    });
    this.element.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Runs and their pictures; one alone needs no choice. @param {View[]} views */
  show(views) {
    this.entries = views.flatMap((view) =>
      Array.from({ length: view.pictures }, (_, picture) => ({ view, picture, button: this.#button(view, picture) })),
    );
    this.element.hidden = this.entries.length < 2;
    fill(this.element, this.element.hidden ? [] : this.entries.map(({ button }) => button));
  }

  /** @param {View} view @param {number} picture */
  choose(view, picture) {
    this.#go(Math.max(0, this.entries.findIndex((one) => one.view === view && one.picture === picture)));
  }

  /** The next picture or the one before. @param {number} by */
  turn(by) {
    const to = this.at + by;
    if (this.entries[to]) this.#go(to);
  }

  /** @param {number} to */
  #go(to) {
    const chosen = this.entries[to];
    if (!chosen) return;
    this.at = to;
    for (const [place, { button }] of this.entries.entries()) {
      button.setAttribute("aria-checked", String(place === to));
      button.tabIndex = place === to ? 0 : -1;
    }
    if (chosen.button.isConnected) {
      const { offsetLeft, offsetWidth } = chosen.button;
      this.element.scrollLeft = offsetLeft - (this.element.clientWidth - offsetWidth) / 2;
    }
    this.onchoose(chosen.view, chosen.picture);
  }

  /** @param {View} view @param {number} picture */
  #button(view, picture) {
    const button = make(
      "button",
      { type: "button", class: "flx-panel-pick", role: "radio", "aria-label": `Picture ${picture + 1}` },
      make("img", { alt: "", draggable: false, loading: "lazy", src: this.server.viewImageUrl(view.id, picture) }),
    );
    button.addEventListener("click", () => this.choose(view, picture));
    return button;
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const by = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (!by || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.turn(by);
    this.entries[this.at]?.button.focus({ preventScroll: true });
  }
}
