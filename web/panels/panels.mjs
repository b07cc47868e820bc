/** What Fluxtionary's nodes show inside themselves. */

import { loadStyle } from "../browser/dom.mjs";
import { Server } from "../browser/server.mjs";
import { Atlases } from "./atlases.mjs";
import { FeatureLine } from "./feature_line.mjs";
import { reserve } from "./place.mjs";
import { RunPanel } from "./run_panel.mjs";
import { nodeAt, outputOf, viewsOf } from "./runs.mjs";

/** @import { Api, App, GraphNode } from "../host.js" */
/** @import { Host, PanelApp, PanelNode } from "./host.js" */

loadStyle("panels.css", import.meta.url);

/** A node that was just made gets its place, number and links within this time. */
const PLACED_MILLISECONDS = 200;

class Panels {
  /** @param {PanelApp} app @param {Api} api */
  constructor(app, api) {
    /** @type {Host} */
    this.host = { app, api, server: new Server(api) };
    this.atlases = new Atlases(this.host.server);
    /** @type {WeakMap<GraphNode, RunPanel>} */
    this.runs = new WeakMap();
    /** @type {Map<GraphNode, FeatureLine>} */
    this.lines = new Map();
    api.addEventListener("executed", (event) => this.#ran(/** @type {CustomEvent<Executed>} */ (event).detail));
    api.addEventListener("graphChanged", () => this.#changed());
  }

  /** @param {PanelNode} node */
  attach(node) {
    const place = reserve(node, this.host.app);
    if (!place || this.runs.has(node) || this.lines.has(node)) return;
    if (place.runs) {
      const panel = new RunPanel(node, this.host, place);
      this.runs.set(node, panel);
      // after a change of workflow the node is a new one, and its run may still be there
      setTimeout(() => void panel.show(viewsOf(outputOf(this.host.app, node)), false), PLACED_MILLISECONDS);
    } else {
      this.lines.set(node, new FeatureLine(node, this.host, place, this.atlases));
      setTimeout(() => this.#changed(), PLACED_MILLISECONDS);
    }
  }

  /** @param {Executed} detail */
  #ran(detail) {
    const views = viewsOf(detail?.output);
    if (!views.length) return;
    const { app } = this.host;
    const node = nodeAt(app.rootGraph ?? app.graph, String(detail.display_node ?? detail.node));
    if (node) void this.runs.get(node)?.show(views);
  }

  #changed() {
    for (const [node, line] of this.lines) {
      // a graph that was cleared still stands in its nodes
      if (node.graph?.getNodeById(node.id) === node) void line.update();
      else this.lines.delete(node);
    }
  }
}

/** @typedef {{ node: string | number, display_node?: string | number, output?: Record<string, unknown> }} Executed */

/** @type {Panels | undefined} */
let panels;

/**
 * Give a node of ours what it shows. @param {GraphNode} node @param {App} app @param {Api} api
 */
export function attach(node, app, api) {
  panels ??= new Panels(/** @type {PanelApp} */ (app), api);
  panels.attach(/** @type {PanelNode} */ (node));
}
