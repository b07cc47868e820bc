/** Shapes of what the server's read-only routes under /fluxtionary/ answer. */

/** An installed atlas, or a folder that should be one and is not (`problem` says why). */
export interface Atlas {
  id: string;
  title: string;
  /** How many features it describes: those that were active. */
  features: number;
  n_features: number;
  site: string;
  kind: string;
  model: string;
  /** Tokens of a picture, [rows, columns]. */
  grid: [number, number];
  /** Pixels of a picture, [height, width]. */
  size: [number, number];
  orders: string[];
  scores: string[];
  /** Its dictionary's file, as Load Dictionary lists it. */
  dictionary: string | null;
  problem: string | null;
}

export interface DictionaryFile {
  name: string;
  kind: string;
  site: string;
  n_features: number;
  model: string;
  /** The atlas that describes it. */
  atlas: string | null;
  problem: string | null;
}

export interface Installed {
  atlases: Atlas[];
  dictionaries: DictionaryFile[];
  /** It is still being found out which dictionary goes with which atlas: ask again later. */
  pending?: boolean;
}

/** A figure in [0, 1] with its 95 % interval; `n` judgments. */
export interface Interval {
  value: number;
  low: number;
  high: number;
  n: number;
}

/** One feature as a list shows it. */
export interface Row {
  feature: number;
  label: string | null;
  density: number | null;
  mean: number | null;
  peak: number | null;
  spread: number | null;
  coverage: number | null;
  output_score: number | null;
  pictures: number | null;
  /** The noise level at which it is most active. */
  sigma: number | null;
  score: { name: string; value: number; low: number; high: number } | null;
  /** Its first top example. */
  picture: number | null;
}

export interface Page {
  features: Row[];
  more: boolean;
  total: number | null;
}

/** Which features, and in which order; a page has at most 200. */
export interface Query {
  atlas: string;
  text?: string;
  order?: string;
  /** With order "coactive": the feature that the others are active together with. */
  like?: number;
  offset?: number;
  limit?: number;
}

export interface Example {
  picture: number;
  peak: number;
  kind: "top" | "spread";
  rank: number;
  prompt: string;
  /** Up to 2**64, so a text. */
  seed: string;
}

export interface Coactive {
  feature: number;
  label: string | null;
  /** Of the places where one of both is active, the share where both are. */
  share: number | null;
}

/** The token of a picture that an ITDA atom is. */
export interface Source {
  prompt: string;
  seed?: string;
  sigma?: number;
  row: number;
  column: number;
}

/** All that an atlas knows of one feature. */
export interface Feature extends Row {
  explanation: string | null;
  scores: Record<string, Interval>;
  /** [noise level, density] */
  sigma_profile: [number, number][];
  /** [from, to, count] */
  histogram: [number, number, number][] | null;
  coactive: Coactive[];
  source: Source | null;
  /** Mean active value, in units of strength. */
  natural: number | null;
  examples: Example[];
}

/** A run that Read Features or Inspect Picture has shown and that is still in memory. */
export interface View {
  id: string;
  site: string;
  steps: number;
  sigmas: number[];
  pictures: number;
  grid: [number, number];
  dictionary: { kind: string; n_features: number; name: string | null };
  atlas: string | null;
  image: boolean;
}

/** A feature among tokens of a view. */
export interface Seen {
  feature: number;
  activation: number;
  peak: number;
  area: number;
  strength: number | null;
  /** How much more it is active here than elsewhere in the picture. */
  specific: number;
  label: string | null;
  picture: number | null;
}

export interface SeenFeatures {
  features: Seen[];
}

/** Tokens [top, bottom) x [left, right) of a picture of a view, steps first to last included. */
export interface Region {
  view: string;
  picture?: number;
  first?: number;
  last?: number;
  top?: number;
  left?: number;
  bottom?: number;
  right?: number;
  count?: number;
}
