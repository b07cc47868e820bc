/** Nodes of the workflow that is open: found, made, set and connected, each as one step that can be undone. */

/** @import { App, Graph, GraphNode, Widget } from "../host.js" */

export const LOAD = "FluxtionaryLoadDictionary";
export const STEER = "FluxtionarySteerWithFeature";
export const HEAT_MAP = "FluxtionaryFeatureHeatMap";
export const TAP = "FluxtionaryTap";
export const INSPECT = "FluxtionaryInspectPicture";

/** The mode of a node that is neither muted nor bypassed. */
export const RUNS = 0;
const GAP = 40;
const TITLE = 30;
const GROWS = 60;
const STEP = 50;
const RINGS = 40;
const SETTLES = 150;

/** @typedef {{ node: GraphNode, slot: number }} End one slot of a node */

/** What is shown: the workflow, or the subgraph that is open. @param {App} app @returns {Graph} */
export function shown(app) {
  return app.canvas.graph ?? app.graph;
}

/** Nodes of a type in what is shown. @param {App} app @param {string} type */
export function nodesOf(app, type) {
  return shown(app).nodes.filter((node) => node.type === type);
}

/** The selected nodes. @param {App} app @returns {GraphNode[]} */
export function selected(app) {
  return Object.values(app.canvas.selected_nodes ?? {});
}

/**
 * Do something to the graph as one step that the user can take back.
 * @template Result
 * @param {App} app @param {() => Result} act @returns {Result}
 */
export function undoable(app, act) {
  const tracker = app.extensionManager.workflow?.activeWorkflow?.changeTracker;
  if (tracker) tracker.beforeChange();
  else app.canvas.emitBeforeChange();
  try {
    return act();
  } finally {
    shown(app).setDirtyCanvas(true, true);
    // a new node takes its size a little later, which belongs to the same step
    if (tracker) setTimeout(() => tracker.afterChange(), SETTLES);
    else app.canvas.emitAfterChange();
  }
}

/** A node's widget. @param {GraphNode} node @param {string} name @returns {Widget | undefined} */
export function widget(node, name) {
  return node.widgets?.find((one) => one.name === name);
}

/** Set a widget as the user would. @param {GraphNode} node @param {string} name @param {unknown} value */
export function setWidget(node, name, value) {
  const found = widget(node, name);
  if (!found || found.value === value) return;
  found.value = value;
  found.callback?.(value);
}

/** The place of an input; -1 without it. @param {GraphNode} node @param {string} name */
export function input(node, name) {
  return node.inputs.findIndex((slot) => slot.name === name);
}

/** The place of the first output of a type; -1 without one. @param {GraphNode} node @param {string} type */
export function output(node, type) {
  return node.outputs.findIndex((slot) => slot.type === type);
}

/** Where an input's link comes from; null where nothing is connected. @param {GraphNode} node @param {number} place */
export function origin(node, place) {
  const id = node.inputs[place]?.link;
  const link = id === null || id === undefined ? undefined : node.graph?.links.get(id);
  const from = link && node.graph?.getNodeById(link.origin_id);
  return link && from ? { node: from, slot: link.origin_slot } : null;
}

/** What an output's links lead to. @param {GraphNode} node @param {number} place @returns {End[]} */
export function targets(node, place) {
  /** @type {End[]} */
  const ends = [];
  for (const id of node.outputs[place]?.links ?? []) {
    const link = node.graph?.links.get(id);
    const to = link && node.graph?.getNodeById(link.target_id);
    if (link && to) ends.push({ node: to, slot: link.target_slot });
  }
  return ends;
}

/** Where a value is really made: through reroutes, which have one input and one output. @param {End | null} end */
export function source(end) {
  for (let steps = 0; end && end.node.type === "Reroute" && steps < 100; steps++) end = origin(end.node, 0);
  return end;
}

/** Connect an output to an input of a name. @param {End} from @param {GraphNode} node @param {string} name */
export function connect(from, node, name) {
  const place = input(node, name);
  const now = origin(node, place);
  if (place < 0 || (now?.node === from.node && now.slot === from.slot)) return;
  from.node.connect(from.slot, node, place);
}

/**
 * The Load Dictionary node that a node's features come from: its own input `dictionary`, or that of the Tap or
 * Inspect Picture whose capture it reads. Null where none is connected.
 * @param {GraphNode} node @returns {GraphNode | null}
 */
export function loader(node) {
  const from = source(origin(node, input(node, "dictionary")));
  if (from) return from.node.type === LOAD ? from.node : null;
  const tap = source(origin(node, input(node, "capture")));
  return tap && tap.node !== node ? loader(tap.node) : null;
}

/** The dictionary file that a node's features come from; null where that cannot be seen. @param {GraphNode} node */
export function dictionaryOf(node) {
  const from = loader(node);
  const name = from && widget(from, "dictionary")?.value;
  return typeof name === "string" ? name : null;
}

/**
 * The Load Dictionary node of a file, or a new one, set to it.
 * @param {App} app @param {string} dictionary @param {[number, number]} [place] of a new one
 */
export function loaderOf(app, dictionary, place) {
  const found = nodesOf(app, LOAD).find(
    (node) => widget(node, "dictionary")?.value === dictionary && node.mode === RUNS,
  );
  if (found) return found;
  const node = add(app, LOAD, place ?? middle(app));
  setWidget(node, "dictionary", dictionary);
  return node;
}

/** Select a node alone. @param {App} app @param {GraphNode} node */
export function select(app, node) {
  app.canvas.selectNodes([node]);
}

/**
 * A new node where the user looks, as near to a place as there is room. Throws where the type is not known.
 * @param {App} app @param {string} type @param {[number, number]} place its top left corner
 */
export function add(app, type, place) {
  const node = LiteGraph.createNode(type);
  if (!node) throw new Error(`ComfyUI has no node ${type}. Restart it after an update of Fluxtionary.`);
  // it grows once it is drawn, by what is shown on it and by the rows of the newer nodes
  const size = /** @type {[number, number]} */ ([node.size[0], 1.2 * node.size[1] + GROWS]);
  const seen = sight(app);
  const wanted = within(place, size, seen)
    ? place
    : /** @type {[number, number]} */ ([
        seen.left + (seen.width - size[0]) / 2,
        seen.top + (seen.height - size[1]) / 2,
      ]);
  node.pos = free(shown(app), wanted, size, seen) ?? free(shown(app), wanted, size) ?? wanted;
  shown(app).add(node);
  return node;
}

/** The middle of what the user sees of the graph, beside the sidebar. @param {App} app @returns {[number, number]} */
export function middle(app) {
  const { left, top, width, height } = sight(app);
  return [left + width / 2, top + height / 2];
}

/** What the user sees of the graph, in its own units. @param {App} app @returns {Box} */
function sight(app) {
  const { canvas, ds } = app.canvas;
  const whole = canvas.getBoundingClientRect();
  const part = document.querySelector(".graph-canvas-panel")?.getBoundingClientRect() ?? whole;
  return {
    left: (part.left - whole.left) / ds.scale - ds.offset[0],
    top: (part.top - whole.top) / ds.scale - ds.offset[1],
    width: part.width / ds.scale,
    height: part.height / ds.scale,
  };
}

/** @typedef {{ left: number, top: number, width: number, height: number }} Box */

/**
 * A place for a box of a size near the wanted one where no node lies; null where there is none, or none inside.
 * @param {Graph} graph @param {[number, number]} wanted @param {[number, number]} size @param {Box} [inside]
 * @returns {[number, number] | null}
 */
function free(graph, wanted, size, inside) {
  for (let ring = 0; ring < RINGS; ring++) {
    for (const [x, y] of around(ring)) {
      /** @type {[number, number]} */
      const place = [wanted[0] + x * STEP, wanted[1] + y * STEP];
      if (inside && !within(place, size, inside)) continue;
      if (!graph.nodes.some((node) => overlaps(place, size, node))) return place;
    }
  }
  return null;
}

/** @param {[number, number]} place @param {[number, number]} size @param {Box} box */
function within([x, y], [width, height], box) {
  const bottom = box.top + box.height;
  return x > box.left && x + width < box.left + box.width && y - TITLE > box.top && y + height < bottom;
}

/** Cells of a square ring about a place, the nearest first. @param {number} ring @returns {[number, number][]} */
function around(ring) {
  /** @type {[number, number][]} */
  const cells = [];
  for (let along = -ring; along <= ring; along++) {
    cells.push([along, ring], [along, -ring], [ring, along], [-ring, along]);
  }
  return cells.sort((one, other) => Math.hypot(...one) - Math.hypot(...other));
}

/** @param {[number, number]} place @param {[number, number]} size @param {GraphNode} node */
function overlaps(place, size, node) {
  const height = node.flags.collapsed ? 0 : node.size[1];
  return (
    place[0] < node.pos[0] + node.size[0] + GAP &&
    place[0] + size[0] + GAP > node.pos[0] &&
    place[1] - TITLE < node.pos[1] + height + GAP &&
    place[1] + size[1] + GAP > node.pos[1] - TITLE
  );
}
