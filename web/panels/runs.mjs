/** What the nodes gave when they last ran. */

/** @import { View } from "../browser/types.js" */
/** @import { Graph, GraphNode } from "../host.js" */
/** @import { PanelApp } from "./host.js" */

/** What a node gave when it last ran. @param {PanelApp} app @param {GraphNode} node */
export function outputOf(app, node) {
  const { graph } = node;
  const inside = graph && graph !== app.rootGraph && "id" in graph;
  return app.nodeOutputs?.[inside ? `${graph.id}:${node.id}` : String(node.id)];
}

/** The runs that a node of ours showed. @param {Record<string, unknown> | null | undefined} output @returns {View[]} */
export function viewsOf(output) {
  const views = output?.["fluxtionary_view"];
  return Array.isArray(views) ? views : [];
}

/** A node by its place in a run, such as `3:7`: node 7 of the subgraph that node 3 is. @param {Graph} graph @param {string} place */
export function nodeAt(graph, place) {
  /** @type {GraphNode | null} */
  let node = null;
  /** @type {Graph | null} */
  let inside = graph;
  for (const id of place.split(":")) {
    node = inside?.getNodeById(id) ?? inside?.getNodeById(Number(id)) ?? null;
    inside = node && "subgraph" in node ? /** @type {Graph} */ (node.subgraph) : null;
  }
  return node;
}
