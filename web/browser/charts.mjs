/** Small drawings of figures. Each says in words what it shows. */

import { draw } from "./dom.mjs";
import { percent, short, whole } from "./words.mjs";

const WIDTH = 280;
const HEIGHT = 84;
const FLOOR = 66;

/**
 * How often which activations were seen.
 * @param {[number, number, number][]} bins [from, to, count]
 */
export function histogram(bins) {
  const most = Math.max(1, ...bins.map(([, , count]) => count));
  const least = Math.min(most, ...bins.map(([, , count]) => count).filter(Boolean));
  const logarithmic = most / least > 200;
  /** @param {number} count */
  const share = (count) => (logarithmic ? Math.log1p(count) / Math.log1p(most) : count / most);
  const step = WIDTH / Math.max(1, bins.length);
  const bars = bins.map(([from, to, count], place) => {
    const height = count ? Math.max(2, share(count) * (FLOOR - 6)) : 0;
    const bar = {
      x: place * step + 0.75,
      y: FLOOR - height,
      width: Math.max(1, step - 1.5),
      height,
      rx: 1.5,
      class: "flx-bar-fill",
    };
    return draw("rect", bar, draw("title", null, `${short(from)} to ${short(to)}: ${whole(count)}`));
  });
  const from = bins[0]?.[0] ?? 0;
  const to = bins.at(-1)?.[1] ?? 0;
  const about = `Activations from ${short(from)} to ${short(to)}${logarithmic ? ", counts on a logarithmic scale" : ""}`;
  return chart(about, bars, short(from), short(to), logarithmic ? "log scale" : "");
}

/**
 * How much of the picture it is active on while the noise goes away: sampling goes from left to right.
 * @param {[number, number][]} profile [noise level, density]
 */
export function sigmaProfile(profile) {
  const points = [...profile].sort((one, other) => other[0] - one[0]);
  const most = Math.max(...points.map(([, value]) => value), 1e-12);
  const high = points[0]?.[0] ?? 1;
  const low = points.at(-1)?.[0] ?? 0;
  /** @param {number} sigma */
  const across = (sigma) => 6 + ((high - sigma) / (high - low || 1)) * (WIDTH - 12);
  /** @param {number} value */
  const up = (value) => FLOOR - (Math.max(0, value) / most) * (FLOOR - 10);
  const line = points.map(([sigma, value]) => `${across(sigma).toFixed(1)},${up(value).toFixed(1)}`).join(" ");
  const best = points.reduce((one, other) => (other[1] > one[1] ? other : one), points[0] ?? [0, 0]);
  const dots = points.map(([sigma, value]) =>
    draw(
      "circle",
      { cx: across(sigma), cy: up(value), r: 3, class: "flx-dot" },
      draw("title", null, `noise ${short(sigma)}: ${percent(value)} of places`),
    ),
  );
  return chart(
    `Most active at noise level ${short(best[0])}, on ${percent(best[1])} of places`,
    [
      draw("polygon", { points: `${across(high)},${FLOOR} ${line} ${across(low)},${FLOOR}`, class: "flx-area" }),
      draw("polyline", { points: line, class: "flx-line-stroke" }),
      ...dots,
    ],
    `noise ${short(high)}`,
    `noise ${short(low)}`,
    "sampling →",
  );
}

/**
 * A figure from 0 to 1 with its interval; the mark in the middle is chance.
 * @param {{ value: number, low: number, high: number }} score
 */
export function interval({ value, low, high }) {
  /** @param {number} share */
  const across = (share) => Math.max(0, Math.min(1, share)) * WIDTH;
  return draw(
    "svg",
    { viewBox: `0 0 ${WIDTH} 14`, class: "flx-interval", "aria-hidden": "true", preserveAspectRatio: "none" },
    draw("rect", { x: 0, y: 5, width: WIDTH, height: 4, rx: 2, class: "flx-track" }),
    draw("line", { x1: WIDTH / 2, x2: WIDTH / 2, y1: 2, y2: 12, class: "flx-chance" }),
    draw("rect", {
      x: across(low),
      y: 5,
      width: Math.max(2, across(high) - across(low)),
      height: 4,
      rx: 2,
      class: "flx-between",
    }),
    draw("rect", { x: across(value) - 1.5, y: 1, width: 3, height: 12, rx: 1.5, class: "flx-bar-fill" }),
  );
}

/** The token of a picture that an atom is. @param {[number, number]} grid @param {number} row @param {number} column */
export function place([rows, columns], row, column) {
  const size = 56;
  const cell = size / Math.max(rows, columns);
  return draw(
    "svg",
    {
      viewBox: `0 0 ${columns * cell} ${rows * cell}`,
      class: "flx-place",
      role: "img",
      "aria-label": `Row ${row} and column ${column} of ${rows} by ${columns}`,
    },
    draw("rect", { x: 0, y: 0, width: columns * cell, height: rows * cell, rx: 3, class: "flx-track" }),
    draw("rect", { x: column * cell, y: row * cell, width: cell, height: cell, rx: 1, class: "flx-bar-fill" }),
  );
}

/** @param {string} about @param {SVGElement[]} marks @param {string} left @param {string} right @param {string} middle */
function chart(about, marks, left, right, middle) {
  return draw(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "flx-chart", role: "img", "aria-label": about },
    draw("title", null, about),
    draw("line", { x1: 0, x2: WIDTH, y1: FLOOR + 0.5, y2: FLOOR + 0.5, class: "flx-axis" }),
    ...marks,
    draw("text", { x: 0, y: HEIGHT - 3, class: "flx-tick" }, left),
    draw("text", { x: WIDTH / 2, y: HEIGHT - 3, class: "flx-tick", "text-anchor": "middle" }, middle),
    draw("text", { x: WIDTH, y: HEIGHT - 3, class: "flx-tick", "text-anchor": "end" }, right),
  );
}
