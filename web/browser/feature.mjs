/** The page of one feature: what it is about, how sure that is, what it looks like, and what to do with it. */

/** @import { Atlas, Example, Feature, Row } from "./types.js" */
/** @import { Server } from "./server.mjs" */

import { pictureOf } from "./cell.mjs";
import { histogram, interval, place, sigmaProfile } from "./charts.mjs";
import { fill, loadStyle, make } from "./dom.mjs";
import { said, wasAborted } from "./server.mjs";
import { thumbnail } from "./thumbnail.mjs";
import { named, orderName, percent, short, whole } from "./words.mjs";

loadStyle("page.css", import.meta.url);

const COMPANIONS = 12;
const BANDS = ["Strongest quarter", "Second quarter", "Third quarter", "Weakest quarter"];

/**
 * @typedef {object} Actions
 * @property {() => void} back
 * @property {(feature: number) => void} open
 * @property {(feature: Feature) => void} like list all that is active together with it
 * @property {(feature: Feature, another: boolean) => void} steer
 * @property {(feature: Feature, another: boolean) => void} mask
 */

export class FeaturePage {
  /** @type {AbortController | undefined} */
  #asked;
  /** @type {ReturnType<typeof thumbnail>[]} */
  #pictures = [];
  heat = true;

  /** @param {Server} server @param {Actions} actions */
  constructor(server, actions) {
    this.server = server;
    this.actions = actions;
    this.element = make("article", { class: "flx-page", tabIndex: -1, hidden: true });
  }

  /**
   * Fetch and show a feature.
   * @param {Atlas} atlas @param {number} number @param {string} from what the back link leads to
   */
  async show(atlas, number, from) {
    this.stop();
    const asked = new AbortController();
    this.#asked = asked;
    fill(this.element, this.#back(from), make("div", { class: "flx-note", role: "status" }, make("p", null, "…")));
    this.element.scrollTop = 0;
    try {
      const feature = await this.server.feature(atlas.id, number, asked.signal);
      if (this.#asked !== asked) return;
      this.#draw(atlas, feature, from);
      await this.#companions(atlas, feature, asked.signal);
    } catch (error) {
      if (wasAborted(error) || this.#asked !== asked) return;
      fill(
        this.element,
        this.#back(from),
        make("div", { class: "flx-note", role: "alert" }, make("p", { class: "flx-wrong" }, said(error))),
      );
    }
  }

  stop() {
    this.#asked?.abort();
    this.#asked = undefined;
    for (const picture of this.#pictures) picture.stop();
    this.#pictures = [];
  }

  /** @param {string} from */
  #back(from) {
    const arrow = make("i", { class: "pi pi-arrow-left", "aria-hidden": "true" });
    return make(
      "button",
      { class: "flx-back", type: "button", title: "Back (Escape)", onclick: () => this.actions.back() },
      arrow,
      from,
    );
  }

  /** @param {Atlas} atlas @param {Feature} feature @param {string} from */
  #draw(atlas, feature, from) {
    const title = named(feature.feature, feature.label);
    this.element.setAttribute("aria-label", title);
    fill(
      this.element,
      this.#back(from),
      make(
        "header",
        { class: "flx-head" },
        make("h2", null, title),
        make("span", { class: "flx-number" }, `#${feature.feature}`),
      ),
      feature.explanation && make("p", { class: "flx-why" }, feature.explanation),
      this.#scores(feature),
      this.#buttons(atlas, feature),
      this.#examples(atlas, feature),
      this.#figures(feature),
      feature.histogram?.length ? section("Activation", histogram(feature.histogram)) : null,
      feature.sigma_profile.length > 1
        ? section("While the picture is made", sigmaProfile(feature.sigma_profile))
        : null,
      feature.source && this.#source(atlas, feature.source),
      make("section", { class: "flx-companions" }),
    );
  }

  /** @param {Feature} feature */
  #scores({ scores, label }) {
    const all = Object.entries(scores);
    if (!all.length) return label ? null : make("p", { class: "flx-why" }, "Nobody has explained this feature yet.");
    return make(
      "div",
      { class: "flx-scores" },
      all.map(([name, score]) =>
        make(
          "div",
          { class: "flx-score", title: `${whole(score.n)} judgments; chance is 0.5` },
          make("span", { class: "flx-key" }, orderName(name)),
          make(
            "span",
            { class: "flx-value" },
            score.value.toFixed(2),
            make("small", null, ` ${score.low.toFixed(2)}–${score.high.toFixed(2)}`),
          ),
          interval(score),
        ),
      ),
    );
  }

  /** @param {Atlas} atlas @param {Feature} feature */
  #buttons(atlas, feature) {
    const missing =
      atlas.dictionary === null && "Its dictionary is not installed: put the file into models/flux_dictionaries.";
    /** @param {string} text @param {string} icon @param {string} about @param {"steer" | "mask"} act @param {string} kind */
    const button = (text, icon, about, act, kind) =>
      make(
        "button",
        {
          class: `flx-button ${kind}`,
          type: "button",
          disabled: Boolean(missing),
          title: missing || about,
          onclick: (/** @type {MouseEvent} */ event) => this.actions[act](feature, event.shiftKey),
        },
        make("i", { class: `pi ${icon}`, "aria-hidden": "true" }),
        text,
      );
    const again = "sets the selected node, or adds one (with Shift always)";
    return make(
      "div",
      { class: "flx-actions" },
      make(
        "div",
        { class: "flx-row" },
        button("Steer with this", "pi-compass", `Have the next run steered with it: ${again}`, "steer", "flx-primary"),
        button("Mask from this", "pi-clone", `Have a mask of where it is active: ${again}`, "mask", ""),
      ),
      missing && make("p", { class: "flx-wrong" }, missing),
    );
  }

  /** @param {Atlas} atlas @param {Feature} feature */
  #examples(atlas, feature) {
    const top = feature.examples.filter((one) => one.kind === "top").sort((one, other) => one.rank - other.rank);
    const spread = feature.examples
      .filter((one) => one.kind === "spread")
      .sort((one, other) => Math.abs(other.peak) - Math.abs(one.peak));
    if (!feature.examples.length) return null;
    const toggle = make(
      "button",
      {
        class: "flx-icon",
        type: "button",
        "aria-label": "Heat maps",
        title: "Show where it is active",
        "aria-pressed": String(this.heat),
      },
      make("i", { class: "pi pi-sun", "aria-hidden": "true" }),
    );
    toggle.addEventListener("click", () => {
      this.heat = !this.heat;
      toggle.setAttribute("aria-pressed", String(this.heat));
      for (const picture of this.#pictures) picture.heat(this.heat);
    });
    return make(
      "section",
      null,
      make("div", { class: "flx-title" }, make("h3", null, "Where it is most active"), toggle),
      this.#strip(atlas, feature, top),
      spread.length > 0 && make("div", { class: "flx-title" }, make("h3", null, "Drawn from all that have it")),
      make(
        "div",
        { class: "flx-bands" },
        bands(spread).map(([name, some]) => this.#band(atlas, feature, name, some)),
      ),
    );
  }

  /** @param {Atlas} atlas @param {Feature} feature @param {string} name @param {Example[]} examples */
  #band(atlas, feature, name, examples) {
    return make("div", null, make("h4", null, name), this.#strip(atlas, feature, examples));
  }

  /** @param {Atlas} atlas @param {Feature} feature @param {Example[]} examples */
  #strip(atlas, feature, examples) {
    const most = Math.max(...feature.examples.map((one) => Math.abs(one.peak)), 1e-12);
    return make(
      "div",
      { class: "flx-strip", role: "list" },
      examples.map((example) => this.#example(atlas, feature, example, most)),
    );
  }

  /** @param {Atlas} atlas @param {Feature} feature @param {Example} example @param {number} most */
  #example(atlas, feature, example, most) {
    const picture = thumbnail({
      picture: this.server.pictureUrl(atlas.id, example.picture),
      map: this.server.mapUrl(atlas.id, feature.feature, example.picture),
      alt: example.prompt,
      size: atlas.size,
    });
    this.#pictures.push(picture);
    picture.heat(this.heat);
    const share = Math.abs(example.peak) / most;
    return make(
      "figure",
      {
        class: "flx-example",
        role: "listitem",
        title: `${example.prompt}\nseed ${example.seed}, peak ${short(example.peak)}`,
        onpointerenter: () => picture.heat(!this.heat),
        onpointerleave: () => picture.heat(this.heat),
      },
      picture.element,
      make(
        "span",
        { class: "flx-peak", "aria-hidden": "true" },
        make("span", { style: { width: `${(100 * share).toFixed(0)}%` } }),
      ),
    );
  }

  /** @param {Feature} feature */
  #figures(feature) {
    /** @type {[string, string, string][]} */
    const figures = [
      [
        "Natural strength",
        short(feature.natural),
        "How strong it is by itself where it is active, in the units of the strength that you steer with",
      ],
      ["How common", percent(feature.density), "Share of all places in all pictures on which it is active"],
      ["Pictures", feature.pictures === null ? "–" : whole(feature.pictures), "Pictures in which it is active"],
      ["Share of the picture", percent(feature.coverage), "Share of a picture on which it is active"],
      ["Mean activity", short(feature.mean), "Where it is active"],
      ["Peak activity", short(feature.peak), "The most in any picture"],
      ["Spread", short(feature.spread), "0 is one place, 1 is everywhere"],
      ["Effect", short(feature.output_score), "How much a unit of it changes what the model does next"],
    ];
    const known = figures.filter(([, value]) => value !== "–");
    return make(
      "dl",
      { class: "flx-figures" },
      known.map(([name, value, about]) =>
        make("div", { title: about }, make("dt", null, name), make("dd", null, value)),
      ),
    );
  }

  /** @param {Atlas} atlas @param {NonNullable<Feature["source"]>} source */
  #source(atlas, { prompt, seed, sigma, row, column }) {
    const where = [
      `row ${row}, column ${column}`,
      seed !== undefined && `seed ${seed}`,
      sigma !== undefined && `noise ${short(sigma)}`,
    ];
    return section(
      "Taken from one place of one picture",
      make(
        "div",
        { class: "flx-source" },
        place(atlas.grid, row, column),
        make(
          "div",
          null,
          make("p", null, `“${prompt}”`),
          make("p", { class: "flx-quiet" }, where.filter(Boolean).join(" · ")),
        ),
      ),
    );
  }

  /** @param {Atlas} atlas @param {Feature} feature @param {AbortSignal} signal */
  async #companions(atlas, feature, signal) {
    if (!feature.coactive.length) return;
    const query = { atlas: atlas.id, order: "coactive", like: feature.feature, limit: COMPANIONS };
    const { features, more } = await this.server.features(query, signal);
    const shares = new Map(feature.coactive.map((one) => [one.feature, one.share]));
    const all =
      (more || feature.coactive.length > features.length) &&
      make("button", { class: "flx-link", type: "button", onclick: () => this.actions.like(feature) }, "all");
    const into = this.element.querySelector(".flx-companions");
    if (!into || !features.length) return;
    fill(
      into,
      make("div", { class: "flx-title" }, make("h3", null, "Active together with it"), all),
      make(
        "div",
        { class: "flx-strip", role: "list" },
        features.map((row) => this.#companion(atlas, row, shares.get(row.feature) ?? null)),
      ),
    );
  }

  /** @param {Atlas} atlas @param {Row} row @param {number | null} share */
  #companion(atlas, row, share) {
    const picture = pictureOf(this.server, atlas, row);
    const name = named(row.feature, row.label);
    const link = make(
      "button",
      {
        class: "flx-companion",
        type: "button",
        title: share === null ? name : `${name}: both on ${percent(share)} of the places where one is`,
        onclick: () => this.actions.open(row.feature),
        onpointerenter: () => picture?.heat(true),
        onpointerleave: () => picture?.heat(false),
        onfocus: () => picture?.heat(true),
        onblur: () => picture?.heat(false),
      },
      picture?.element,
      make("span", { class: "flx-name" }, name),
      make(
        "span",
        { class: "flx-small" },
        make("span", null, `#${row.feature}`),
        share !== null && make("span", null, percent(share)),
      ),
    );
    return make("div", { role: "listitem" }, link);
  }
}

/**
 * Examples drawn from all pictures, the strongest first, by quarters.
 * @param {Example[]} examples @returns {[string, Example[]][]}
 */
function bands(examples) {
  if (examples.length < 4) return examples.length ? [["Any of them", examples]] : [];
  const step = examples.length / BANDS.length;
  return BANDS.map((name, at) => [name, examples.slice(Math.round(at * step), Math.round((at + 1) * step))]);
}

/** @param {string} title @param {Node} body */
function section(title, body) {
  return make("section", null, make("h3", null, title), body);
}
