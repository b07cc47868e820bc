/** How a workflow samples: which node samples, where its model comes from, and what becomes of what it makes. */

/** @import { App, GraphNode } from "../host.js" */
/** @import { End } from "./graph.mjs" */

import {
  dictionaryOf,
  INSPECT,
  middle,
  nodesOf,
  origin,
  output,
  RUNS,
  selected,
  shown,
  source,
  STEER,
  TAP,
  targets,
} from "./graph.mjs";

const STEERS = new Set([STEER, "FluxtionarySteerWithVector"]);

/** @typedef {{ sampler: GraphNode, place: number, from: End }} Inflow a sampler, its input for a model, and what is there */

/**
 * Where a node that changes the model belongs: before the sampler that the user means. That is a selected one, else
 * one that is steered already, else one that starts from no other's picture, else the nearest to what is seen.
 * @param {App} app @returns {Inflow | null}
 */
export function inflow(app) {
  const all = shown(app)
    .nodes.map(inflowOf)
    .filter((one) => one !== null);
  const chosen = new Set(selected(app));
  const [x, y] = middle(app);
  /** @param {Inflow} one */
  const rank = ({ sampler, from }) => [
    chosen.has(sampler) ? 0 : 1,
    steered(from) ? 0 : 1,
    follows(sampler, new Set(all.map((one) => one.sampler))) ? 1 : 0,
    Math.hypot(sampler.pos[0] - x, sampler.pos[1] - y),
  ];
  const ranked = all.map((one) => ({ one, rank: rank(one) }));
  ranked.sort((one, other) => one.rank.reduce((sum, value, at) => sum || value - (other.rank[at] ?? 0), 0));
  return ranked[0]?.one ?? null;
}

/**
 * What samples takes a model and makes a latent, a picture or a guider.
 * @param {GraphNode} node @returns {Inflow | null}
 */
function inflowOf(node) {
  if (node.mode !== RUNS || node.type.startsWith("Fluxtionary")) return null;
  if (!node.outputs?.some((slot) => ["LATENT", "IMAGE", "GUIDER"].includes(slot.type))) return null;
  const place = (node.inputs ?? []).findIndex((slot) => slot.type === "MODEL" && slot.link !== null);
  const from = place < 0 ? null : origin(node, place);
  return from ? { sampler: node, place, from } : null;
}

/** Whether a model is steered on its way. @param {End | null} end */
function steered(end) {
  for (let steps = 0; end && steps < 200; steps++) {
    if (STEERS.has(end.node.type) && end.node.mode === RUNS) return true;
    const place = end.node.inputs?.findIndex((slot) => slot.type === "MODEL" || slot.type === "*") ?? -1;
    end = place < 0 ? null : origin(end.node, place);
  }
  return false;
}

/** Whether a node comes after one of some others. @param {GraphNode} node @param {Set<GraphNode>} others */
function follows(node, others) {
  const seen = new Set([node]);
  for (const one of seen) {
    for (let place = 0; place < (one.inputs?.length ?? 0); place++) {
      const before = origin(one, place)?.node;
      if (before && others.has(before) && before !== node) return true;
      if (before) seen.add(before);
    }
  }
  return false;
}

/**
 * The output that has a node's latent: its own, or that of what its model or guider goes to.
 * @param {GraphNode} node @returns {End | null}
 */
export function latentOf(node) {
  const seen = new Set([node]);
  for (const one of seen) {
    const slot = output(one, "LATENT");
    if (slot >= 0 && (one !== node || !one.type.startsWith("Fluxtionary"))) return { node: one, slot };
    for (const [place, { type }] of (one.outputs ?? []).entries()) {
      if (!["MODEL", "GUIDER", "*"].includes(type)) continue;
      for (const { node: next } of targets(one, place)) if (next.mode === RUNS) seen.add(next);
    }
  }
  return null;
}

/**
 * The picture that a latent is decoded to, or was encoded from; null where the graph has none.
 * @param {End} latent @returns {End | null}
 */
export function imageOf(latent) {
  for (const { node } of targets(latent.node, latent.slot)) {
    const slot = output(node, "IMAGE");
    if (slot >= 0 && !node.type.startsWith("Fluxtionary")) return { node, slot };
  }
  const place = latent.node.inputs?.findIndex((slot) => slot.type === "IMAGE") ?? -1;
  return place < 0 ? null : origin(latent.node, place);
}

/**
 * What a Feature Heat Map needs, where the graph already reads a dictionary: its capture and the latent of the run.
 * @param {App} app @param {string | null} dictionary
 * @returns {{ capture: End, latent: End, picture: End } | null}
 */
export function readings(app, dictionary) {
  for (const type of [TAP, INSPECT]) {
    for (const node of nodesOf(app, type)) {
      if (node.mode !== RUNS || dictionaryOf(node) !== dictionary) continue;
      const capture = { node, slot: output(node, "FLUX_CAPTURE") };
      const latent = type === TAP ? latentOf(node) : { node, slot: output(node, "LATENT") };
      const seen =
        type === TAP
          ? latent
          : source(
              origin(
                node,
                node.inputs.findIndex((slot) => slot.type === "LATENT"),
              ),
            );
      if (latent && capture.slot >= 0) return { capture, latent, picture: seen ?? latent };
    }
  }
  return null;
}
