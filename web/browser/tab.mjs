/** The sidebar tab: one browser that lives as long as the page, shown and left as the tab is opened and closed. */

/** @import { Api, App } from "../host.js" */
/** @import { Atlas, Feature } from "./types.js" */
/** @import { Chosen } from "./choice.mjs" */
/** @import { Wanted } from "./send.mjs" */

import { Choice, emptyState } from "./choice.mjs";
import { fill, loadStyle, make } from "./dom.mjs";
import { FeaturePage } from "./feature.mjs";
import { List } from "./list.mjs";
import { mask, steer } from "./send.mjs";
import { said, Server, wasAborted } from "./server.mjs";

loadStyle("browser.css", import.meta.url);

const LAST = "fluxtionary.atlas";
const PENDING = 1500;

/** @type {Browser | undefined} */
let browser;

/**
 * Show the browser in the tab; ComfyUI calls it again whenever it draws the tab anew.
 * @param {HTMLElement} container @param {App} app @param {Api} api
 */
export function show(container, app, api) {
  browser ??= new Browser(app, new Server(api));
  if (browser.element.parentElement === container) return;
  fill(container, browser.element);
  browser.enter();
}

/** The tab is about to be closed. */
export function leave() {
  browser?.leave();
}

class Browser {
  /** @type {Atlas | null} */
  #atlas = null;
  /** @type {AbortController | undefined} */
  #asked;
  /** Features whose pages were opened one from another. @type {number[]} */
  #trail = [];
  #installed = "";
  #top = 0;

  /** @param {App} app @param {Server} server */
  constructor(app, server) {
    this.app = app;
    this.server = server;
    this.choice = new Choice(
      (chosen) => this.#choose(chosen),
      () => this.#look(true),
    );
    this.list = new List(server, (feature) => this.#open(feature));
    this.page = new FeaturePage(server, {
      back: () => this.#back(),
      open: (feature) => this.#open(feature),
      like: (feature) => this.#like(feature),
      steer: (feature, another) => this.#send(steer, feature, another),
      mask: (feature, another) => this.#send(mask, feature, another),
    });
    this.empty = make("div", { class: "flx-note", hidden: true });
    this.heading = make("h1", { class: "flx-heading" }, "Features");
    this.element = make(
      "div",
      {
        class: "flx",
        role: "region",
        "aria-label": "Features",
        onkeydown: (/** @type {KeyboardEvent} */ event) => this.#key(event),
      },
      this.heading,
      this.choice.element,
      this.empty,
      this.list.element,
      this.page.element,
    );
  }

  enter() {
    this.list.back();
    this.page.element.scrollTop = this.#top;
    void this.#look(false);
  }

  leave() {
    this.#top = this.page.element.scrollTop;
    this.list.leave();
    this.#asked?.abort();
  }

  /** Ask what is installed; `again`: show it anew though nothing has changed. @param {boolean} again */
  async #look(again) {
    this.#asked?.abort();
    const asked = (this.#asked = new AbortController());
    try {
      const installed = await this.server.installed(asked.signal);
      if (installed.pending)
        setTimeout(() => this.#asked === asked && this.element.isConnected && this.#look(false), PENDING);
      const text = JSON.stringify([installed.atlases, installed.dictionaries]);
      if (text === this.#installed && !again) return;
      this.#installed = text;
      this.choice.show(installed, this.choice.key ?? localStorage.getItem(LAST) ?? "");
      if (!installed.atlases.length && !installed.dictionaries.length) this.#tell(emptyState({}));
    } catch (error) {
      if (wasAborted(error)) return;
      this.#installed = "";
      const retry = make(
        "button",
        { class: "flx-button", type: "button", onclick: () => this.#look(true) },
        "Try again",
      );
      this.#tell(
        make("div", { class: "flx-empty" }, make("p", { class: "flx-wrong", role: "alert" }, said(error)), retry),
      );
    }
  }

  /** @param {Chosen} chosen */
  #choose(chosen) {
    localStorage.setItem(LAST, this.choice.key ?? "");
    if (!("atlas" in chosen) || chosen.atlas.problem) return this.#tell(emptyState(chosen));
    const same = this.#atlas?.id === chosen.atlas.id;
    this.#atlas = chosen.atlas;
    this.empty.hidden = true;
    if (!same) this.#trail = [];
    this.#turn();
    this.list.show(chosen.atlas);
  }

  /** Say something in place of the list. @param {Node} what */
  #tell(what) {
    this.#atlas = null;
    this.#trail = [];
    this.list.stop();
    this.list.element.hidden = true;
    this.page.element.hidden = true;
    this.choice.element.hidden = this.heading.hidden = false;
    this.empty.hidden = false;
    fill(this.empty, what);
  }

  /** @param {number} feature */
  #open(feature) {
    if (!this.#trail.length) this.list.leave();
    this.#trail.push(feature);
    this.#turn();
    this.page.element.focus({ preventScroll: true });
  }

  #back() {
    this.#trail.pop();
    this.#turn();
    if (this.#trail.length) return this.page.element.focus({ preventScroll: true });
    this.list.back();
    this.list.grid.focus(this.list.grid.current);
  }

  /** @param {Feature} feature */
  #like(feature) {
    this.#trail = [];
    this.#turn();
    this.list.showLike(feature);
    this.list.search.focus();
  }

  /** Show the page that was opened last, or the list. */
  #turn() {
    const feature = this.#trail.at(-1);
    const open = feature !== undefined && this.#atlas !== null;
    this.list.element.hidden = open;
    this.choice.element.hidden = this.heading.hidden = open;
    this.page.element.hidden = !open;
    const before = this.#trail.at(-2);
    if (open && this.#atlas)
      void this.page.show(this.#atlas, feature, before === undefined ? "All features" : `#${before}`);
    else this.page.stop();
  }

  /** @param {(app: App, wanted: Wanted) => unknown} put @param {Feature} feature @param {boolean} another */
  #send(put, feature, another) {
    if (!this.#atlas) return;
    try {
      const { dictionary } = this.#atlas;
      put(this.app, { feature: feature.feature, label: feature.label ?? undefined, dictionary, another });
    } catch (error) {
      this.app.extensionManager.toast.add({ severity: "error", summary: "Features", detail: said(error) });
    }
  }

  /** Keys that work everywhere in the tab, and that ComfyUI must not take for its own. @param {KeyboardEvent} event */
  #key(event) {
    const typing = event.target instanceof HTMLInputElement;
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
    if (event.key === "/" && plain && !typing && this.#atlas) {
      this.#trail = [];
      this.#turn();
      this.list.back();
      this.list.search.focus();
      this.list.search.select();
    } else if (event.key === "Escape" && this.#trail.length) this.#back();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
