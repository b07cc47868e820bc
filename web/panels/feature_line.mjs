/** The line under a node's feature number: what that feature is, a way to choose another, and where it acts. */

import { fill, make } from "../browser/dom.mjs";
import { dictionaryOf, input, origin, setWidget, undoable, widget } from "../browser/graph.mjs";
import { said } from "../browser/server.mjs";
import { named } from "../browser/words.mjs";
import { paintWhere, whereIs } from "./paint.mjs";
import { pick } from "./picker.mjs";
import { smallThumbnail } from "./small_thumbnail.mjs";

/** @import { Atlas, Row } from "../browser/types.js" */
/** @import { Atlases } from "./atlases.mjs" */
/** @import { Host, PanelNode } from "./host.js" */
/** @import { NodePlace } from "./place.mjs" */

/** @typedef {{ picture?: HTMLElement, title: string, detail: string, plain?: boolean }} Line */

export class FeatureLine {
  /** @param {PanelNode} node @param {Host} host @param {NodePlace} place @param {Atlases} atlases */
  constructor(node, host, place, atlases) {
    this.node = node;
    this.host = host;
    this.atlases = atlases;
    this.drawn = "";
    /** @type {Atlas | null} */
    this.atlas = null;
    this.choose = make("button", {
      type: "button",
      class: "flx-panel-feature",
      "aria-haspopup": "dialog",
      onclick: () => void this.#pick(),
    });
    this.where = make("span", { class: "flx-panel-where" });
    this.paint = make("button", { type: "button", class: "flx-panel-plain", onclick: () => void this.#paint() }, "Paint where");
    const masked = input(node, "mask") >= 0;
    const acting = masked && make("div", { class: "flx-panel-acting" }, this.where, this.paint);
    place.fill(make("div", { class: "flx-panel-line" }, this.choose, acting));
    place.show(true);
    this.#follow();
    void this.update();
  }

  /** Draw again if the number, the dictionary or the mask is another. */
  async update() {
    this.where.textContent = whereIs(this.node);
    const linked = origin(this.node, input(this.node, "feature")) !== null;
    const [dictionary, feature] = [dictionaryOf(this.node), Number(widget(this.node, "feature")?.value)];
    const wanted = `${linked} ${feature} ${dictionary}`;
    if (wanted === this.drawn) return;
    this.drawn = wanted;
    const line = linked ? OTHER : await this.#line(dictionary, feature);
    if (wanted === this.drawn) this.#draw(line, linked);
  }

  /** @param {string | null} dictionary @param {number} feature @returns {Promise<Line>} */
  async #line(dictionary, feature) {
    if (dictionary === null) {
      this.atlas = null;
      return { title: named(feature, null), detail: "Connect a dictionary to see it", plain: true };
    }
    try {
      const { atlas, pending } = await this.atlases.of(dictionary);
      this.atlas = atlas?.problem ? null : atlas;
      if (pending) this.#again();
      if (!this.atlas) return { title: named(feature, null), detail: atlas?.problem ?? NO_ATLAS, plain: true };
      return this.#known(this.atlas, await this.atlases.row(this.atlas.id, feature));
    } catch (error) {
      // asked again with the next change
      this.drawn = "";
      return { title: named(feature, null), detail: said(error), plain: true };
    }
  }

  /** The server is still finding out which atlas it is. */
  #again() {
    setTimeout(() => {
      this.drawn = "";
      if (this.node.graph) void this.update();
    }, AGAIN_MILLISECONDS);
  }

  /** @param {Atlas} atlas @param {Row} row @returns {Line} */
  #known(atlas, row) {
    const picture = smallThumbnail(this.host.server, { atlas: atlas.id, feature: row.feature, picture: row.picture });
    const detail = [`#${row.feature}`, row.score && `score ${row.score.value.toFixed(2)}`].filter(Boolean).join(" · ");
    return { picture, title: named(row.feature, row.label), detail: row.label ? detail : "No label", plain: !row.label };
  }

  /** @param {Line} line @param {boolean} linked */
  #draw({ picture, title, detail, plain }, linked) {
    this.choose.disabled = linked || !this.atlas;
    this.choose.title = this.choose.disabled ? detail : "Choose another feature";
    this.choose.setAttribute("aria-label", `${title}, ${detail}${this.choose.disabled ? "" : ". Choose another feature"}`);
    fill(
      this.choose,
      picture ?? make("span", { class: "flx-panel-thumb is-empty" }, make("i", { class: "pi pi-image" })),
      make(
        "span",
        { class: "flx-panel-name" },
        make("span", { class: `flx-panel-label${plain ? " is-plain" : ""}` }, title),
        make("span", { class: "flx-panel-meta" }, detail),
      ),
      !this.choose.disabled && make("i", { class: "pi pi-chevron-down flx-panel-chevron", "aria-hidden": "true" }),
    );
  }

  async #pick() {
    if (!this.atlas) return;
    const now = Number(widget(this.node, "feature")?.value);
    const feature = await pick(this.host, this.choose, this.atlas, now);
    if (feature === null) return;
    undoable(this.host.app, () => setWidget(this.node, "feature", feature));
    void this.update();
  }

  async #paint() {
    this.paint.disabled = true;
    try {
      await paintWhere(this.host, this.node, () => void this.update());
    } catch (error) {
      this.host.app.extensionManager.toast.add({ severity: "warn", summary: "Paint where", detail: said(error), life: 6000 });
    }
    this.paint.disabled = false;
  }

  /** Hear of the number and of links; `Panels` hears of everything else that changes in the graph. */
  #follow() {
    const number = widget(this.node, "feature");
    const [changed, connected] = [number?.callback, this.node.onConnectionsChange];
    if (number) {
      number.callback = (value, ...more) => {
        changed?.call(number, value, ...more);
        void this.update();
      };
    }
    this.node.onConnectionsChange = (...change) => {
      connected?.apply(this.node, change);
      queueMicrotask(() => void this.update());
    };
  }
}

const AGAIN_MILLISECONDS = 3000;
const NO_ATLAS = "No atlas of this dictionary, so no picture or label";
/** @type {Line} */
const OTHER = { title: "From another node", detail: "The number comes over the wire", plain: true };
