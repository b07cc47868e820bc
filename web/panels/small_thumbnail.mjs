/** A feature's picture from its atlas, small, with its heat map while the pointer is on it. */

import { make } from "../browser/dom.mjs";
import { thumbnail } from "../browser/thumbnail.mjs";

/** @import { Server } from "../browser/server.mjs" */

/**
 * The feature's first example; a quiet square where there is none.
 * @param {Server} server
 * @param {{ atlas: string | null, feature: number, picture: number | null }} shown
 */
export function smallThumbnail(server, { atlas, feature, picture }) {
  if (atlas === null || picture === null) return make("span", { class: "flx-panel-thumb is-empty" });
  const { element, heat } = thumbnail({
    picture: server.pictureUrl(atlas, picture),
    map: server.mapUrl(atlas, feature, picture),
  });
  element.classList.add("flx-panel-thumb");
  element.addEventListener("pointerenter", () => heat(true));
  element.addEventListener("pointerleave", () => heat(false));
  return element;
}
