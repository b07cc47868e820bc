/** The panel on Read Features and Inspect Picture: the run's pictures, and the features of what is chosen in them. */

import { make, paced } from "../browser/dom.mjs";
import { mask, steer } from "../browser/send.mjs";
import { said, wasAborted } from "../browser/server.mjs";
import { Batch } from "./batch.mjs";
import { PictureField } from "./picture_field.mjs";
import { SeenList } from "./seen_list.mjs";
import { StepChoice } from "./steps.mjs";

/** @import { Wanted } from "../browser/send.mjs" */
/** @import { Seen, View } from "../browser/types.js" */
/** @import { App } from "../host.js" */
/** @import { Host, PanelNode } from "./host.js" */
/** @import { NodePlace } from "./place.mjs" */
/** @import { Box } from "./tokens.mjs" */

const COUNT = 24;
const PACE_MILLISECONDS = 250;

export class RunPanel {
  /** @param {PanelNode} node @param {Host} host @param {NodePlace} place */
  constructor(node, host, place) {
    this.node = node;
    this.host = host;
    /** @type {View | null} */
    this.view = null;
    /** @type {View[]} */
    this.latest = [];
    this.picture = 0;
    /** @type {Box | null} */
    this.area = null;
    /** @type {Seen | null} */
    this.current = null;
    /** @type {AbortController | null} */
    this.asking = null;
    this.field = new PictureField({
      onchoose: (area, settled) => this.#choose(area, settled),
      onenter: () => this.list.focus(),
      onturn: (by) => this.batch.turn(by),
    });
    this.batch = new Batch(host.server, (view, picture) => void this.#open(view, picture));
    this.steps = new StepChoice((settled) => this.#stepped(settled));
    this.list = new SeenList(host.server, {
      onlook: (seen) => this.#look(seen),
      onsteer: (seen) => this.#send(steer, seen),
      onmask: (seen) => this.#send(mask, seen),
      onback: () => this.field.element.focus({ preventScroll: true }),
    });
    this.where = make("span", { class: "flx-panel-where", role: "status" });
    this.all = make("button", { type: "button", class: "flx-panel-plain", hidden: true }, "Whole picture");
    this.all.addEventListener("click", () => this.#choose(this.field.choose(null), true));
    this.content = this.#content();
    this.place = place;
    place.fill(this.content);
    this.askSoon = paced(() => void this.#ask(), PACE_MILLISECONDS);
  }

  #content() {
    return make(
      "section",
      { class: "flx-panel-run", "aria-label": "Features of this run" },
      make("div", { class: "flx-panel-seeing" }, this.field.element, this.batch.element, this.steps.element),
      make(
        "div",
        { class: "flx-panel-finding" },
        make("div", { class: "flx-panel-head" }, this.where, this.all),
        this.list.element,
      ),
    );
  }

  /**
   * Show what a run gave.
   * @param {View[]} views @param {boolean} [anew] it has just run; else it may be gone, and then nothing is shown
   */
  async show(views, anew = true) {
    if (!views.length) return;
    const latest = (this.latest = views);
    try {
      // which atlas and file belong to a run is found out when it is asked for
      const known = await Promise.all(views.map(({ id }) => this.host.server.view(id)));
      if (latest !== this.latest) return;
      const first = known[0];
      if (!first) return;
      this.place.show(true);
      this.batch.show(known);
      this.batch.choose(first, Math.max(0, Math.min(this.picture, first.pictures - 1)));
    } catch (error) {
      if (!anew || latest !== this.latest) return;
      this.place.show(true);
      this.list.say(said(error), true);
    }
  }

  /** @param {View} view @param {number} picture */
  async #open(view, picture) {
    const same = this.view?.site === view.site && this.view.steps === view.steps;
    this.view = view;
    this.picture = picture;
    this.area = null;
    if (!same) this.#clear();
    const name = view.pictures > 1 ? `Picture ${picture + 1} of ${view.pictures}` : "Picture";
    this.field.show(this.host.server.viewImageUrl(view.id, picture), view.grid, name);
    this.steps.show(view.steps, view.sigmas);
    this.#lay();
    this.#head();
    await this.#ask();
  }

  /** @param {Box | null} area @param {boolean} settled */
  #choose(area, settled) {
    this.area = area;
    this.steps.stop();
    this.#clear();
    this.#head();
    if (settled) void this.#ask();
    else this.askSoon();
  }

  #head() {
    this.where.textContent = this.field.said;
    this.all.hidden = !this.area;
  }

  /** @param {boolean} settled */
  #stepped(settled) {
    this.#lay();
    if (settled) void this.#ask();
    else if (!this.steps.playing) this.askSoon();
  }

  /** @param {Seen} seen */
  #look(seen) {
    this.current = seen;
    this.list.mark(seen.feature);
    this.#lay();
  }

  #clear() {
    this.current = null;
    this.list.mark(null);
    this.field.lay(null);
  }

  /** The heat map of the feature that is looked at, at these steps. */
  #lay() {
    if (!this.view || !this.current) return;
    const { feature, label } = this.current;
    const where = { view: this.view.id, picture: this.picture, feature, ...this.steps.chosen };
    this.field.lay(this.host.server.viewMapUrl(where), label ? `${label} · #${feature}` : `Feature ${feature}`);
  }

  async #ask() {
    const view = this.view;
    if (!view) return;
    this.asking?.abort();
    const asking = new AbortController();
    this.asking = asking;
    this.content.classList.add("is-asking");
    const region = { view: view.id, picture: this.picture, ...this.steps.chosen, ...this.area, count: COUNT };
    try {
      const { features } = await this.host.server.viewFeatures(region, asking.signal);
      if (asking.signal.aborted) return;
      this.list.show(features, view.atlas, this.current?.feature ?? null);
    } catch (error) {
      if (wasAborted(error) || asking.signal.aborted) return;
      this.list.say(said(error), true);
    }
    this.content.classList.remove("is-asking");
  }

  /** @param {(app: App, wanted: Wanted) => unknown} put @param {Seen} seen */
  #send(put, { feature, label }) {
    if (!this.view) return;
    const { app } = this.host;
    try {
      put(app, { feature, label: label ?? undefined, dictionary: this.view.dictionary.name, like: this.node });
    } catch (error) {
      app.extensionManager.toast.add({ severity: "error", summary: "Features", detail: said(error) });
    }
  }
}
