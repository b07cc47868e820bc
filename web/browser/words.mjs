/** What things are called in the interface, and how numbers are written. */

/** @import { Row } from "./types.js" */

/** @type {Record<string, string>} */
const ORDERS = {
  relevance: "Best match",
  number: "Number",
  density: "How common",
  mean: "Mean activity",
  peak: "Peak activity",
  spread: "Spread over the picture",
  coverage: "Share of the picture",
  output_score: "Effect on the picture",
  pictures: "Number of pictures",
  sigma: "Noise level",
  coactive: "Active together",
  interp: "Label score",
  interp_paper: "Label score (paper)",
  region: "Region score",
};

/** What an order or a score is called. @param {string} order */
export function orderName(order) {
  return ORDERS[order] ?? order;
}

/** What a feature is called where it has no label. @param {number} feature @param {string | null} label */
export function named(feature, label) {
  return label || `Feature ${feature}`;
}

/** A number with three digits. @param {number | null | undefined} value */
export function short(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value !== 0 && (Math.abs(value) >= 1e6 || Math.abs(value) < 1e-3)) return value.toExponential(1);
  return Number(value.toPrecision(3)).toLocaleString("en-US", { maximumFractionDigits: 6 });
}

/** A whole number with its thousands apart. @param {number} value */
export function whole(value) {
  return value.toLocaleString("en-US");
}

/** A share in percent. @param {number | null | undefined} value */
export function percent(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const hundred = 100 * value;
  if (hundred > 0 && hundred < 0.1) return "< 0.1%";
  return `${hundred >= 10 ? Math.round(hundred) : Number(hundred.toFixed(1))}%`;
}

/**
 * A figure of a row in the order that it is listed in; empty where the order has none.
 * @param {Row} row @param {string} order
 */
export function figure(row, order) {
  switch (order) {
    case "density":
    case "coverage":
      return row[order] === null ? "" : percent(row[order]);
    case "mean":
    case "peak":
    case "spread":
    case "output_score":
    case "sigma":
      return row[order] === null ? "" : short(row[order]);
    case "pictures":
      return row.pictures === null ? "" : `${whole(row.pictures)} pictures`;
    default:
      return row.score ? row.score.value.toFixed(2) : "";
  }
}
