/** Where a feature acts, painted with the host's own mask editor on a picture of the last run. */

import * as graph from "../browser/graph.mjs";
import { outputOf, viewsOf } from "./runs.mjs";

/** @import { GraphNode } from "../host.js" */
/** @import { Host, PanelApp, PanelNode, PictureFile } from "./host.js" */

const LOAD_IMAGE = "LoadImage";
const PAINTED = /(^|\/)clipspace-/;

/** Pictures that are there to be painted on, by the node that they are for. @type {WeakMap<PanelNode, PanelNode>} */
const waiting = new WeakMap();

/** Where a node acts, to read. @param {PanelNode} node */
export function whereIs(node) {
  const from = graph.source(graph.origin(node, graph.input(node, "mask")));
  if (!from) return "Acts everywhere";
  return painted(from.node) ? "Acts where painted" : `Acts where ${from.node.title} says`;
}

/**
 * Open the mask editor for a node: on the picture whose mask it has, else on one of the last run. The mask is connected
 * once something is saved, so that a closed editor changes nothing. Throws what to do where there is no picture.
 * @param {Host} host @param {PanelNode} node @param {() => void} [done]
 */
export async function paintWhere(host, node, done) {
  const now = graph.source(graph.origin(node, graph.input(node, "mask")));
  if (now && graph.widget(now.node, "image")) return edit(host, now.node);
  // an editor that was closed without saving left its picture there
  const left = waiting.get(node);
  if (left?.graph) return edit(host, left);
  const file = shownPicture(host.app, node) ?? (await runPicture(host));
  if (!file) throw new Error("Run the graph first: there is no picture to paint on yet.");
  const loader = graph.undoable(host.app, () => {
    const made = graph.add(host.app, LOAD_IMAGE, [node.pos[0] - 340, node.pos[1] + 120]);
    made.title = "Where it acts";
    graph.setWidget(made, "image", named(file));
    return made;
  });
  waiting.set(node, loader);
  whenPainted(loader, () => {
    waiting.delete(node);
    if (!node.graph) return;
    graph.undoable(host.app, () => graph.connect({ node: loader, slot: graph.output(loader, "MASK") }, node, "mask"));
    done?.();
  });
  await edit(host, loader);
}

/** Act once when the mask editor has saved into a node. @param {PanelNode} node @param {() => void} act */
function whenPainted(node, act) {
  const image = graph.widget(node, "image");
  if (!image) return;
  const changed = image.callback;
  image.callback = (value, ...more) => {
    changed?.call(image, value, ...more);
    if (!painted(node)) return;
    image.callback = changed;
    act();
  };
}

/** @param {Host} host @param {PanelNode} node with an image widget */
async function edit({ app, api }, node) {
  const value = String(graph.widget(node, "image")?.value ?? "");
  const { filename, subfolder = "", type = "input" } = file(value);
  const picture = new Image();
  picture.src = api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);
  await picture.decode();
  // as the host's own button does before it opens the editor
  node.imgs = [picture];
  node.imageIndex = 0;
  graph.select(app, node);
  await app.extensionManager.command.execute("Comfy.MaskEditor.OpenMaskEditor");
}

/** Whether a node's mask was painted. @param {PanelNode} node */
function painted(node) {
  return PAINTED.test(String(graph.widget(node, "image")?.value ?? ""));
}

/**
 * A picture that a run made and a node showed: behind this node first, else anywhere.
 * @param {PanelApp} app @param {PanelNode} node
 */
function shownPicture(app, node) {
  for (const one of [...after(node), ...graph.shown(app).nodes]) {
    const images = made(one) ? outputOf(app, one)?.["images"] : undefined;
    const file = Array.isArray(images) ? images.find((image) => image?.filename) : undefined;
    if (file) return /** @type {PictureFile} */ (file);
  }
  return undefined;
}

/** Whether what a node shows comes right out of a VAE: what is laid over or beside it later is no place to paint. @param {GraphNode} node */
function made(node) {
  const place = node.inputs.findIndex((slot) => slot.type === "IMAGE");
  const from = graph.source(graph.origin(node, place));
  return !!from?.node.inputs.some((slot) => slot.type === "VAE");
}

/** A picture of a run that a node of ours read, as a file. @param {Host} host @returns {Promise<PictureFile | undefined>} */
async function runPicture({ app, api, server }) {
  for (const node of graph.shown(app).nodes) {
    const id = viewsOf(outputOf(app, node))[0]?.id;
    const answer = id === undefined ? null : await fetch(server.viewImageUrl(id, 0));
    if (!answer?.ok) continue;
    const body = new FormData();
    body.append("image", new File([await answer.blob()], `run-${id}.webp`, { type: "image/webp" }));
    body.append("type", "input");
    body.append("subfolder", "fluxtionary");
    const kept = await api.fetchApi("/upload/image", { method: "POST", body });
    if (!kept.ok) throw new Error(`ComfyUI did not take the picture to paint on: ${kept.status}`);
    const { name, subfolder, type } = await kept.json();
    return { filename: name, subfolder, type };
  }
  return undefined;
}

/** Nodes that a node's outputs lead to, nearest first. @param {PanelNode} node */
function* after(node) {
  /** @type {Set<GraphNode>} */
  const seen = new Set([node]);
  for (const one of seen) {
    yield one;
    for (const place of one.outputs.keys()) for (const end of graph.targets(one, place)) seen.add(end.node);
  }
}

/** A file as an image widget names it. @param {PictureFile} file */
function named({ filename, subfolder, type }) {
  return `${subfolder ? `${subfolder}/` : ""}${filename}${type && type !== "input" ? ` [${type}]` : ""}`;
}

/** The file that an image widget names. @param {string} value @returns {PictureFile} */
function file(value) {
  const [, path = "", type] = /^(.*?)(?: \[(\w+)\])?$/.exec(value) ?? [];
  const cut = path.lastIndexOf("/");
  return { filename: path.slice(cut + 1), subfolder: path.slice(0, Math.max(0, cut)), type };
}
