/** Boxes of tokens on a picture's grid: what a click, a drag or the arrow keys choose. */

/** @typedef {[number, number]} Token row and column */
/** @typedef {[number, number]} Grid rows and columns */
/** @typedef {{ anchor: Token, head: Token }} Choice from where and to where, both included, in any order */
/** @typedef {{ top: number, left: number, bottom: number, right: number }} Box `bottom` and `right` are not in it */

/** @type {Record<string, Token | undefined>} */
const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/**
 * The token under a point, given as shares of the picture's height and width; the nearest one outside of it.
 * @param {number} down @param {number} across @param {Grid} grid @returns {Token}
 */
export function tokenAt(down, across, [rows, columns]) {
  return [within(Math.floor(down * rows), rows), within(Math.floor(across * columns), columns)];
}

/** @param {Choice} choice @returns {Box} */
export function box({ anchor, head }) {
  return {
    top: Math.min(anchor[0], head[0]),
    left: Math.min(anchor[1], head[1]),
    bottom: Math.max(anchor[0], head[0]) + 1,
    right: Math.max(anchor[1], head[1]) + 1,
  };
}

/**
 * What an arrow key makes of a choice: a token further, or with `extend` a larger or smaller box. Without a choice it
 * begins in the middle. Null for another key.
 * @param {Choice | null} choice @param {string} key @param {boolean} extend @param {Grid} grid @returns {Choice | null}
 */
export function moved(choice, key, extend, grid) {
  const step = STEPS[key];
  if (!step) return null;
  if (!choice) return one([Math.floor((grid[0] - 1) / 2), Math.floor((grid[1] - 1) / 2)]);
  /** @type {Token} */
  const head = [within(choice.head[0] + step[0], grid[0]), within(choice.head[1] + step[1], grid[1])];
  return extend ? { anchor: choice.anchor, head } : one(head);
}

/** One token alone. @param {Token} token @returns {Choice} */
export function one(token) {
  return { anchor: token, head: token };
}

/** Where a box is, to read, counted from 1. @param {Box | null} area */
export function described(area) {
  if (!area) return "Whole picture";
  const { top, left, bottom, right } = area;
  if (bottom - top === 1 && right - left === 1) return `Row ${bottom}, column ${right}`;
  return `${lines("Row", top, bottom)}, ${lines("column", left, right)}`;
}

/** @param {string} word @param {number} first @param {number} end */
function lines(word, first, end) {
  return end - first === 1 ? `${word} ${end}` : `${word}s ${first + 1} to ${end}`;
}

/** @param {number} place @param {number} count */
function within(place, count) {
  return Math.max(0, Math.min(count - 1, place));
}
