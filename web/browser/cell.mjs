/** A feature in a list: its picture, what it is about, and the figure that the list is sorted by. */

/** @import { Atlas, Row } from "./types.js" */
/** @import { Server } from "./server.mjs" */
/** @import { Cell } from "./grid.mjs" */

import { fill, make } from "./dom.mjs";
import { thumbnail } from "./thumbnail.mjs";
import { figure, named, orderName } from "./words.mjs";

/** @typedef {Cell & { heat(): void }} FeatureCell `heat` looks again whether heat maps are to be seen */

/**
 * A cell that fills once its row is here. The heat map is seen under the pointer, with the keyboard on it, or always.
 * @param {HTMLElement} element @param {Server} server @param {Atlas} atlas
 * @param {() => { row: Row | undefined, order: string, heat: boolean }} look
 * @returns {FeatureCell}
 */
export function featureCell(element, server, atlas, look) {
  /** @type {ReturnType<typeof thumbnail> | undefined} */
  let picture;
  let near = false;
  const heat = () => picture?.heat(near || look().heat);
  /** @param {boolean} is */
  const nears = (is) => {
    near = is;
    heat();
  };
  element.addEventListener("pointerenter", () => nears(true));
  element.addEventListener("pointerleave", () => nears(false));
  element.addEventListener("focus", () => nears(element.matches(":focus-visible")));
  element.addEventListener("blur", () => nears(false));
  element.append(make("span", { class: "flx-thumbnail flx-waiting", style: { "aspect-ratio": ratio(atlas) } }));
  element.setAttribute("aria-busy", "true");
  return {
    heat,
    stop: () => picture?.stop(),
    fill() {
      const { row, order } = look();
      if (!row) return false;
      picture = pictureOf(server, atlas, row);
      const about = figure(row, order);
      const title = named(row.feature, row.label);
      element.removeAttribute("aria-busy");
      element.setAttribute(
        "aria-label",
        [title, `number ${row.feature}`, about && `${orderName(order)} ${about}`].filter(Boolean).join(", "),
      );
      element.title = title;
      element.dataset.feature = String(row.feature);
      fill(
        element,
        picture?.element ??
          make("span", {
            class: "flx-thumbnail flx-missing",
            data: { missing: "no picture" },
            style: { "aspect-ratio": ratio(atlas) },
          }),
        make("span", { class: row.label ? "flx-name" : "flx-name flx-unnamed" }, row.label || "no label"),
        make("span", { class: "flx-small" }, make("span", null, `#${row.feature}`), about && make("span", null, about)),
      );
      heat();
      return true;
    },
  };
}

/**
 * A row's picture with its heat map; undefined where it has none.
 * @param {Server} server @param {Atlas} atlas @param {Row} row
 */
export function pictureOf(server, atlas, row) {
  if (row.picture === null) return undefined;
  return thumbnail({
    picture: server.pictureUrl(atlas.id, row.picture),
    map: server.mapUrl(atlas.id, row.feature, row.picture),
    size: atlas.size,
  });
}

/** @param {Atlas} atlas */
function ratio({ size }) {
  return `${size[1]} / ${size[0]}`;
}
