/** Which atlas is looked at: all that is installed, what is missing, and what is wrong. */

/** @import { Atlas, DictionaryFile, Installed } from "./types.js" */

import { fill, make } from "./dom.mjs";
import { whole } from "./words.mjs";

const FOLDER = "models/flux_atlases";

/** @typedef {{ atlas: Atlas } | { dictionary: DictionaryFile }} Chosen */

export class Choice {
  /** @type {Map<string, Chosen>} */
  #all = new Map();

  /** @param {(chosen: Chosen) => void} choose @param {() => void} again */
  constructor(choose, again) {
    this.choose = choose;
    this.select = make("select", {
      class: "flx-atlas",
      "aria-label": "Dictionary",
      onchange: () => this.#chosen(this.select.value),
    });
    this.about = make("div", { class: "flx-about" });
    this.problems = make("div");
    const refresh = make(
      "button",
      {
        class: "flx-icon",
        type: "button",
        title: "Look again what is installed",
        "aria-label": "Refresh",
        onclick: again,
      },
      make("i", { class: "pi pi-refresh", "aria-hidden": "true" }),
    );
    this.element = make(
      "header",
      { class: "flx-choice" },
      make("div", { class: "flx-bar" }, this.select, refresh),
      this.about,
      this.problems,
    );
  }

  /** Show what is installed; what was looked at stays chosen. @param {Installed} installed @param {string} last */
  show({ atlases, dictionaries }, last) {
    const alone = dictionaries.filter((one) => one.atlas === null);
    this.#all = new Map([
      ...atlases.map((atlas) => /** @type {[string, Chosen]} */ ([`atlas:${atlas.id}`, { atlas }])),
      ...alone.map((dictionary) => /** @type {[string, Chosen]} */ ([`dictionary:${dictionary.name}`, { dictionary }])),
    ]);
    fill(
      this.select,
      group(
        "Atlases",
        atlases.map((one) => option(`atlas:${one.id}`, one.title || one.id, one.problem)),
      ),
      group(
        "Dictionaries without an atlas",
        alone.map((one) => option(`dictionary:${one.name}`, one.name, one.problem)),
      ),
    );
    const usable = atlases.filter((one) => !one.problem);
    const good = usable.find((one) => one.dictionary !== null) ?? usable[0] ?? atlases[0];
    const first = good ? `atlas:${good.id}` : [...this.#all.keys()][0];
    const key = this.#all.has(last) ? last : (first ?? "");
    this.select.hidden = !this.#all.size;
    this.select.disabled = this.#all.size < 2;
    this.select.value = key;
    this.#tellProblems([
      ...atlases.map((one) => [one.title || one.id, one.problem]),
      ...dictionaries.map((one) => [one.name, one.problem]),
    ]);
    this.#chosen(key);
  }

  /** @param {string} key */
  #chosen(key) {
    const chosen = this.#all.get(key);
    this.key = key;
    fill(this.about, chosen && said(chosen));
    if (chosen) this.choose(chosen);
  }

  /** @param {(string | null)[][]} all */
  #tellProblems(all) {
    const bad = all.filter(([, problem]) => problem);
    if (!bad.length) return fill(this.problems);
    const title = bad.length === 1 ? "1 file cannot be used" : `${bad.length} files cannot be used`;
    fill(
      this.problems,
      make(
        "details",
        { class: "flx-problems" },
        make("summary", null, make("i", { class: "pi pi-exclamation-triangle", "aria-hidden": "true" }), title),
        make(
          "ul",
          null,
          bad.map(([name, problem]) => make("li", null, make("b", null, name), make("p", null, problem))),
        ),
      ),
    );
  }
}

/** Where it is from, in a line. @param {Chosen} chosen */
function said(chosen) {
  const { site, kind, model } = "atlas" in chosen ? chosen.atlas : chosen.dictionary;
  const count = "dictionary" in chosen && `${whole(chosen.dictionary.n_features)} features`;
  const parts = [count, kind?.toUpperCase(), site, model];
  return ("atlas" in chosen ? chosen.atlas : chosen.dictionary).problem ? null : parts.filter(Boolean).join(" · ");
}

/** What to do where there is nothing to look at. @param {{ dictionary?: DictionaryFile, atlas?: Atlas }} chosen */
export function emptyState({ dictionary, atlas }) {
  const problem = atlas?.problem ?? dictionary?.problem;
  if (problem)
    return state("pi-exclamation-triangle", "This cannot be used", make("p", { class: "flx-wrong" }, problem));
  const command = commandOf(dictionary?.name);
  const code = make("code", null, command);
  const copy = make(
    "button",
    {
      class: "flx-icon",
      type: "button",
      title: "Copy",
      "aria-label": "Copy the command",
      onclick: () => navigator.clipboard?.writeText(command),
    },
    make("i", { class: "pi pi-copy", "aria-hidden": "true" }),
  );
  return state(
    "pi-images",
    dictionary ? "No atlas of this dictionary yet" : "No atlas yet",
    make("p", null, "An atlas shows what each feature of a dictionary is about: pictures, heat maps and labels."),
    make(
      "p",
      null,
      "Put one into ",
      make("code", null, FOLDER),
      ", each in a folder of its own, or build one in ComfyUI’s folder:",
    ),
    make("div", { class: "flx-command" }, code, copy),
    dictionary && make("p", { class: "flx-quiet" }, "Steer With Feature works without one, by the feature's number."),
  );
}

/** What builds an atlas; a name that a shell could misread is left to the user. @param {string} [name] */
function commandOf(name) {
  const plain = name && /^[\w][\w./-]*$/.test(name) ? name : "DICTIONARY.safetensors";
  const stem = plain.replace(/^.*\//, "").replace(/\.safetensors$/, "");
  return `fluxtionary atlas build models/flux_dictionaries/${plain} --out ${FOLDER}/${stem}`;
}

/** @param {string} icon @param {string} title @param {...(Node | null | false | undefined)} body */
function state(icon, title, ...body) {
  return make(
    "div",
    { class: "flx-empty" },
    make("i", { class: `pi ${icon}`, "aria-hidden": "true" }),
    make("h3", null, title),
    ...body,
  );
}

/** @param {string} label @param {HTMLOptionElement[]} options */
function group(label, options) {
  return options.length ? make("optgroup", { label }, options) : null;
}

/** @param {string} value @param {string} text @param {string | null} problem */
function option(value, text, problem) {
  return make("option", { value }, problem ? `${text} — cannot be used` : text);
}
