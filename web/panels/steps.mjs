/** Which steps of sampling are looked at: from one to another, or one at a time. */

import { fill, make, style } from "../browser/dom.mjs";

const PLAY_MILLISECONDS = 350;

export class StepChoice {
  /** @param {(settled: boolean) => void} onchange settled once the slider is let go */
  constructor(onchange) {
    this.onchange = onchange;
    /** @type {number[]} */
    this.sigmas = [];
    this.single = false;
    /** @type {ReturnType<typeof setInterval> | undefined} */
    this.playing = undefined;
    this.first = this.#slider("First step");
    this.last = this.#slider("Last step");
    this.track = make("div", { class: "flx-panel-track" }, this.first, this.last);
    this.text = make("output", { class: "flx-panel-steps-text" });
    this.play = make("button", { type: "button", class: "flx-panel-icon", onclick: () => this.#toggle() });
    this.mode = make("button", { type: "button", class: "flx-panel-plain", onclick: () => this.#switch() }, "One step");
    this.element = make("div", { class: "flx-panel-steps" }, this.play, this.track, this.text, this.mode);
    this.#label();
  }

  /** @param {number} steps @param {number[]} sigmas noise level of each */
  show(steps, sigmas) {
    this.#stop();
    const same = this.sigmas.length === sigmas.length && Number(this.first.max) === steps - 1;
    this.sigmas = sigmas;
    for (const slider of [this.first, this.last]) slider.max = String(Math.max(0, steps - 1));
    if (!same) {
      this.first.value = "0";
      this.last.value = String(steps - 1);
    }
    this.element.hidden = steps < 2;
    this.#draw();
  }

  get chosen() {
    const [one, other] = [Number(this.first.value), Number(this.last.value)];
    return this.single ? { first: other, last: other } : { first: Math.min(one, other), last: Math.max(one, other) };
  }

  /** Stop what moves by itself. */
  stop() {
    if (this.playing) this.#stop();
  }

  /** @param {string} name */
  #slider(name) {
    const slider = make("input", { type: "range", min: "0", max: "0", step: "1", "aria-label": name });
    slider.addEventListener("input", () => {
      this.stop();
      this.#draw();
      this.onchange(false);
    });
    slider.addEventListener("change", () => this.onchange(true));
    return slider;
  }

  #switch() {
    this.stop();
    this.single = !this.single;
    if (!this.single) this.first.value = "0";
    if (!this.single) this.last.value = this.last.max;
    this.#draw();
    this.onchange(true);
  }

  #toggle() {
    if (this.playing) {
      this.#stop();
      this.onchange(true);
      return;
    }
    this.single = true;
    if (this.last.value === this.last.max) this.last.value = "0";
    this.playing = setInterval(() => this.#step(), PLAY_MILLISECONDS);
    this.#draw();
    this.onchange(false);
  }

  #step() {
    if (!this.element.isConnected || this.last.value === this.last.max) {
      this.#stop();
      this.onchange(true);
      return;
    }
    this.last.value = String(Number(this.last.value) + 1);
    this.#draw();
    this.onchange(false);
  }

  #stop() {
    clearInterval(this.playing);
    this.playing = undefined;
    this.#label();
  }

  #label() {
    const name = this.playing ? "Stop" : "Play the steps";
    this.play.title = name;
    this.play.setAttribute("aria-label", name);
    fill(this.play, make("i", { class: this.playing ? "pi pi-pause" : "pi pi-play", "aria-hidden": "true" }));
  }

  #draw() {
    const { first, last } = this.chosen;
    const most = Math.max(1, Number(this.last.max));
    this.first.hidden = this.single;
    // where both lie together, the one that can move is above
    style(this.first, { "z-index": Number(this.first.value) > most / 2 ? 2 : 1 });
    this.last.setAttribute("aria-label", this.single ? "Step" : "Last step");
    this.mode.setAttribute("aria-pressed", String(this.single));
    style(this.track, {
      "--from": this.single ? 0 : first / most,
      "--to": last / most,
    });
    for (const [slider, step] of /** @type {const} */ ([[this.first, Number(this.first.value)], [this.last, Number(this.last.value)]])) {
      slider.setAttribute("aria-valuetext", this.#said(step));
    }
    const every = first === 0 && last === Number(this.last.max);
    this.text.textContent = every ? "All steps" : first === last ? `Step ${first + 1}` : `Steps ${first + 1} to ${last + 1}`;
    const [from, to] = [this.sigmas[first], this.sigmas[last]];
    this.text.title = from === undefined || to === undefined ? "" : `Noise ${noise(from)}${first === last ? "" : ` to ${noise(to)}`}`;
    this.#label();
  }

  /** @param {number} step */
  #said(step) {
    const sigma = this.sigmas[step];
    return sigma === undefined ? `step ${step + 1}` : `step ${step + 1}, noise ${noise(sigma)}`;
  }
}

/** @param {number} sigma */
function noise(sigma) {
  return `${Math.round(100 * sigma)} %`;
}
