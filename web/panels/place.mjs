/**
 * A piece of the page inside a node: shown in both ways of drawing nodes, and never part of a workflow or prompt.
 * It is made with the node, before what it will hold is fetched, because the newer nodes may not draw a widget that
 * comes later. So this module is loaded with every start, and stands on no other.
 */

/** @import { PanelApp, PanelNode, PanelWidget, SavedNode } from "./host.js" */

const MARGIN = 8;
const LEAST = 60;
/** Nodes that show their last run. */
const SHOW_RUNS = new Set(["FluxtionaryReadFeatures", "FluxtionaryInspectPicture"]);
/** The widget under which a node says what its feature is. */
const NUMBER = "feature";
const HANDLED = new Set([
  ..."ArrowUp ArrowDown ArrowLeft ArrowRight PageUp PageDown Home End Enter Escape Delete Backspace".split(" "),
  " ",
]);

/** @type {WeakMap<object, NodePlace>} */
const places = new WeakMap();
/** How many were made. */
let count = 0;

/**
 * The place of a node, made when it is first asked for; null where the node shows nothing.
 * @param {import("../host.js").GraphNode} node @param {import("../host.js").App} app
 */
export function reserve(node, app) {
  const made = places.get(node);
  if (made) return made;
  const runs = SHOW_RUNS.has(node.comfyClass ?? node.type);
  if (!runs && !node.widgets?.some((one) => one.name === NUMBER)) return null;
  const place = new NodePlace(/** @type {PanelApp} */ (app), /** @type {PanelNode} */ (node), runs);
  places.set(node, place);
  return place;
}

/** The newer nodes are elements of the page, and lay themselves out. */
function newerNodes() {
  return "vueNodesMode" in LiteGraph && LiteGraph.vueNodesMode === true;
}

/** A place for elements inside a node that is as high as what it holds. */
export class NodePlace {
  /** @type {HTMLElement | null} */
  #content = null;

  /**
   * @param {PanelApp} app @param {PanelNode} node
   * @param {boolean} runs it shows the last run: at the node's end, and its height is not saved with the node; else it
   *   goes under the feature's number
   */
  constructor(app, node, runs) {
    this.app = app;
    this.node = node;
    this.runs = runs;
    this.height = 0;
    this.root = document.createElement("div");
    this.root.className = "flx-panel-place";
    this.widget = this.#widget();
    if (!runs) putUnder(node, this.widget, NUMBER);
    keepValues(node, this);
    isolate(this.root, app);
    this.show(false);
  }

  /** @param {HTMLElement} content */
  fill(content) {
    this.#content = content;
    this.root.replaceChildren(content);
    new ResizeObserver(() => this.#measure()).observe(content);
  }

  /** @param {boolean} shown */
  show(shown) {
    this.widget.hidden = !shown;
    this.root.hidden = !shown;
    if (shown) this.height ||= LEAST;
    else this.#resized(0);
    this.node.setDirtyCanvas(true, true);
  }

  /** What the node is higher by. */
  get added() {
    return this.widget.hidden ? 0 : this.height + 2 * MARGIN + 4;
  }

  /** @returns {PanelWidget} */
  #widget() {
    // a number of its own: the newer nodes go on showing the element of an earlier node whose id and widget's name
    // are the same
    const name = `${this.runs ? "features seen" : "feature shown"} ${++count}`;
    const options = {
      serialize: false,
      margin: MARGIN,
      // the node that is selected stays so, because it may be the one to steer
      selectOn: [],
      getValue: () => "",
      getMinHeight: () => this.height + 2 * MARGIN,
      getMaxHeight: () => this.height + 2 * MARGIN,
    };
    /** @type {PanelWidget} */
    const widget = this.node.addDOMWidget(name, "FLUXTIONARY_PANEL", this.root, options);
    widget.serialize = false;
    return widget;
  }

  #measure() {
    const height = this.#content?.offsetHeight;
    if (height && !this.widget.hidden) this.#resized(height);
  }

  /** @param {number} height */
  #resized(height) {
    const before = this.height;
    this.height = height;
    if (height === before || newerNodes() || !this.node.graph) return;
    const least = this.node.computeSize()[1];
    // the node grows by as much as it must, and shrinks by as much as the content does
    const wanted = Math.max(least, this.node.size[1] + Math.min(0, height - before));
    this.node.setSize([this.node.size[0], wanted]);
    this.node.setDirtyCanvas(true, true);
  }
}

/** Move a widget under another. @param {PanelNode} node @param {PanelWidget} widget @param {string} after */
function putUnder(node, widget, after) {
  const widgets = (node.widgets ?? []).filter((one) => one !== widget);
  const above = widgets.findIndex((one) => one.name === after);
  if (above < 0) return;
  widgets.splice(above + 1, 0, widget);
  node.widgets?.splice(0, node.widgets.length, ...widgets);
}

/**
 * The host leaves a hole in a saved node's values where a widget is not saved, and does not skip it when it loads
 * them. Without the hole, the workflow is what it would be without the widget.
 * @param {PanelNode} node @param {NodePlace} own
 */
function keepValues(node, own) {
  const before = node.onSerialize;
  /** @this {PanelNode} @param {SavedNode} saved */
  node.onSerialize = function (saved) {
    before?.call(this, saved);
    if (saved.widgets_values) {
      /** @type {PanelWidget[]} */
      const widgets = this.widgets ?? [];
      saved.widgets_values = widgets.filter((one) => one.serialize !== false).map((one) => one.value);
    }
    if (own.runs && own.added && saved.size) {
      saved.size = [saved.size[0], Math.max(LEAST, saved.size[1] - own.added)];
    }
  };
}

/**
 * What happens inside stays inside: a drag does not move the node, an arrow key does not move the graph. The wheel and
 * the middle button go on to the graph.
 * @param {HTMLElement} root @param {PanelApp} app
 */
function isolate(root, app) {
  for (const name of /** @type {const} */ (["pointerdown", "pointermove", "pointerup"])) {
    root.addEventListener(name, (event) => {
      if (event.button !== 1 && !(event.buttons & 4)) event.stopPropagation();
      else if (!newerNodes()) forward(app, event);
    });
  }
  root.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey && !event.altKey && HANDLED.has(event.key)) event.stopPropagation();
  });
  root.addEventListener("wheel", (event) => {
    if (newerNodes()) return;
    if (!event.ctrlKey && scrolls(event.target, event.deltaY)) return;
    event.preventDefault();
    app.canvas.processMouseWheel(event);
  });
}

/** @param {PanelApp} app @param {PointerEvent} event */
function forward(app, event) {
  if (event.type === "pointerdown") app.canvas.processMouseDown(event);
  else if (event.type === "pointermove") app.canvas.processMouseMove(event);
  else app.canvas.processMouseUp(event);
}

/** Whether the wheel moves a list under the pointer. @param {EventTarget | null} target @param {number} by */
function scrolls(target, by) {
  const list = target instanceof Element ? target.closest('[data-capture-wheel="true"]') : null;
  return !!list && list.scrollHeight > list.clientHeight && by !== 0;
}
