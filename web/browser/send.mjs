/** "Steer with this" and "Mask from this": a feature put into the workflow, ready to run. */

/** @import { App, GraphNode, ToastMessage } from "../host.js" */
/** @import { End } from "./graph.mjs" */
/** @import { Inflow } from "./samplers.mjs" */

import * as graph from "./graph.mjs";
import { imageOf, inflow, latentOf, readings } from "./samplers.mjs";

/**
 * @typedef {object} Wanted
 * @property {number} feature
 * @property {string | null} dictionary the file, as Load Dictionary lists it
 * @property {string} [label] what the feature is about, for the message
 * @property {GraphNode} [like] a node whose dictionary is meant, where the file is not known
 * @property {boolean} [another] add a node also where one is selected
 */

/** @typedef {{ node: GraphNode, text: string }} Sent the node that now has the feature, and what was done */

/** @type {ToastMessage | undefined} */
let told;

/**
 * Have the next run steered with a feature: in the selected Steer With Feature, else in a new one before the sampler.
 * @param {App} app @param {Wanted} wanted @returns {Sent}
 */
export function steer(app, wanted) {
  return send(app, wanted, graph.STEER, (load) => {
    const into = inflow(app);
    const node = graph.add(app, graph.STEER, into ? before(into.sampler) : graph.middle(app));
    put(node, wanted, load);
    if (!into) return { node, text: "A new Steer With Feature has it. Connect the model that it shall steer." };
    between(node, into);
    return { node, text: `A new Steer With Feature steers “${into.sampler.title}” with it. Run to see it.` };
  });
}

/**
 * Have a mask of where a feature is active: in the selected Feature Heat Map, else in a new one.
 * @param {App} app @param {Wanted} wanted @returns {Sent}
 */
export function mask(app, wanted) {
  return send(app, wanted, graph.HEAT_MAP, (load) => {
    const read = readings(app, load ? String(graph.widget(load, "dictionary")?.value) : null) ?? tapped(app, load);
    const node = graph.add(app, graph.HEAT_MAP, read ? after(read.latent.node) : graph.middle(app));
    graph.setWidget(node, "feature", wanted.feature);
    if (!read) return { node, text: "A new Feature Heat Map has it. Connect the latent and the capture of a run." };
    graph.connect(read.capture, node, "capture");
    graph.connect(read.latent, node, "latent");
    const image = imageOf(read.picture);
    if (image) graph.connect(image, node, "image");
    preview(app, node);
    return {
      node,
      text: "A new Feature Heat Map shows where it is active, as a picture and as a mask. Run to see it.",
    };
  });
}

/**
 * @param {App} app @param {Wanted} wanted @param {string} type
 * @param {(load: GraphNode | null) => Sent} make a new node, without one selected
 * @returns {Sent}
 */
function send(app, wanted, type, make) {
  const sent = graph.undoable(app, () => {
    const now = wanted.another ? undefined : graph.selected(app).find((node) => node.type === type);
    if (now) return { node: now, text: set(app, now, wanted) };
    const made = make(loadOf(app, wanted));
    graph.select(app, made.node);
    return made;
  });
  tell(app, `Feature ${wanted.feature}${wanted.label ? `: ${wanted.label}` : ""}`, sent.text);
  return sent;
}

/**
 * Say what was done, in place of what was said before.
 * @param {App} app @param {string} summary @param {string} detail
 */
function tell(app, summary, detail) {
  const { toast } = app.extensionManager;
  if (told) toast.remove?.(told);
  told = { severity: "success", summary, detail, life: 4000 };
  toast.add(told);
}

/** The feature for a node that is there. @param {App} app @param {GraphNode} node @param {Wanted} wanted */
function set(app, node, wanted) {
  graph.setWidget(node, "feature", wanted.feature);
  const right = wanted.dictionary === null || graph.dictionaryOf(node) === wanted.dictionary;
  if (right && graph.loader(node)) return `“${node.title}” has it now. Run to see it.`;
  if (node.type === graph.STEER) {
    put(node, wanted, loadOf(app, wanted, node));
    return `“${node.title}” has it now, and its dictionary. Run to see it.`;
  }
  const read = readings(app, wanted.dictionary) ?? tapped(app, loadOf(app, wanted, node));
  if (!read) return `“${node.title}” has it now. Connect a capture of its dictionary.`;
  graph.connect(read.capture, node, "capture");
  graph.connect(read.latent, node, "latent");
  return `“${node.title}” has it now, and reads its dictionary. Run to see it.`;
}

/** The Load Dictionary node of what is wanted. @param {App} app @param {Wanted} wanted @param {GraphNode} [beside] */
function loadOf(app, { dictionary, like }, beside) {
  const own = like && graph.loader(like);
  if (own) return own;
  if (dictionary === null) return null;
  return graph.loaderOf(app, dictionary, beside && [beside.pos[0] - 330, beside.pos[1]]);
}

/** @param {GraphNode} node @param {Wanted} wanted @param {GraphNode | null} load */
function put(node, wanted, load) {
  graph.setWidget(node, "feature", wanted.feature);
  if (load) graph.connect(dictionary(load), node, "dictionary");
}

/** @param {GraphNode} load @returns {End} */
function dictionary(load) {
  return { node: load, slot: graph.output(load, "FLUX_DICTIONARY") };
}

/** Put a node into the way of a sampler's model. @param {GraphNode} node @param {Inflow} into */
function between(node, { sampler, place, from }) {
  graph.connect(from, node, "model");
  node.connect(graph.output(node, "MODEL"), sampler, place);
}

/**
 * A new Tap before the sampler, where the graph reads no features yet.
 * @param {App} app @param {GraphNode | null} load
 */
function tapped(app, load) {
  const into = load && inflow(app);
  const latent = into && latentOf(into.sampler);
  if (!latent) return null;
  const tap = graph.add(app, graph.TAP, before(into.sampler));
  between(tap, into);
  graph.connect(dictionary(load), tap, "dictionary");
  return { capture: { node: tap, slot: graph.output(tap, "FLUX_CAPTURE") }, latent, picture: latent };
}

/** Something that shows a node's picture, without which it would not run. @param {App} app @param {GraphNode} node */
function preview(app, node) {
  const shown = graph.add(app, "PreviewImage", after(node));
  graph.connect({ node, slot: graph.output(node, "IMAGE") }, shown, "images");
}

/** @param {GraphNode} node @returns {[number, number]} */
function before(node) {
  return [node.pos[0] - 330, node.pos[1]];
}

/** @param {GraphNode} node @returns {[number, number]} */
function after(node) {
  return [node.pos[0] + node.size[0] + 60, node.pos[1]];
}
