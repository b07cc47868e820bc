/** A picture, with where in it a feature is active laid over it when asked for. */

import { loadStyle, make } from "./dom.mjs";

loadStyle("thumbnail.css", import.meta.url);

/**
 * @typedef {object} Shown
 * @property {string} picture where the picture is
 * @property {string} map where the heat map is; fetched when it is first shown
 * @property {string} [alt] what a screen reader says; nothing where a label stands beside it
 * @property {[number, number]} [size] of the picture, [height, width]
 */

/**
 * A picture that shows its heat map with `heat(true)`. `stop()` ends what is still being fetched.
 * @param {Shown} shown
 */
export function thumbnail({ picture, map, alt = "", size = [1, 1] }) {
  const image = make("img", { alt, draggable: false, decoding: "async", src: picture });
  const element = make("span", { class: "flx-thumbnail", style: { "aspect-ratio": `${size[1]} / ${size[0]}` } }, image);
  image.addEventListener("error", () => {
    if (!image.hasAttribute("src")) return;
    image.remove();
    element.classList.add("flx-missing");
    element.dataset.missing = "no picture";
  });
  /** @type {HTMLImageElement | undefined} */
  let over;

  /** @param {boolean} on */
  function heat(on) {
    if (on && !over) {
      over = make("img", { class: "flx-map", alt: "", draggable: false, decoding: "async", src: map });
      element.append(over);
      void over.offsetWidth; // so that it fades in
    }
    over?.classList.toggle("flx-shown", on);
  }

  function stop() {
    for (const one of [image, over]) if (one && !one.complete) one.removeAttribute("src");
  }

  return { element, heat, stop };
}
