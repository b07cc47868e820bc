/** Questions to the server, typed. Every answer that is not one is an error whose message a user can read. */

/** @import { Api } from "../host.js" */
/** @import { Feature, Installed, Page, Query, Region, SeenFeatures, View } from "./types.js" */

const ROOT = "/fluxtionary";

/** Whether an error only says that a newer question took this one's place. @param {unknown} error */
export function wasAborted(error) {
  return error instanceof DOMException && error.name === "AbortError";
}

/** What a user can read of an error. @param {unknown} error */
export function said(error) {
  return error instanceof Error ? error.message : String(error);
}

export class Server {
  /** @param {Api} api */
  constructor(api) {
    this.api = api;
  }

  /** Atlases and dictionaries that are there. @param {AbortSignal} [signal] @returns {Promise<Installed>} */
  installed(signal) {
    return this.#ask("/installed", {}, signal);
  }

  /** A page of features. @param {Query} query @param {AbortSignal} [signal] @returns {Promise<Page>} */
  features(query, signal) {
    return this.#ask("/features", query, signal);
  }

  /**
   * All about one feature.
   * @param {string} atlas @param {number} feature @param {AbortSignal} [signal] @returns {Promise<Feature>}
   */
  feature(atlas, feature, signal) {
    return this.#ask("/feature", { atlas, feature }, signal);
  }

  /** Where a picture of an atlas is, for an image's `src`. @param {string} atlas @param {number} picture */
  pictureUrl(atlas, picture) {
    return this.#url("/picture", { atlas, picture });
  }

  /**
   * Where a feature's heat map on a picture is; transparent, to lay over the picture.
   * @param {string} atlas @param {number} feature @param {number} picture
   */
  mapUrl(atlas, feature, picture) {
    return this.#url("/map", { atlas, feature, picture });
  }

  /** A run that a node has shown. @param {string} view @param {AbortSignal} [signal] @returns {Promise<View>} */
  view(view, signal) {
    return this.#ask("/view", { view }, signal);
  }

  /** Where a picture of a run is. @param {string} view @param {number} picture */
  viewImageUrl(view, picture) {
    return this.#url("/view/image", { view, picture });
  }

  /**
   * The features of some tokens, those first that are more active there than elsewhere.
   * @param {Region} region @param {AbortSignal} [signal] @returns {Promise<SeenFeatures>}
   */
  viewFeatures(region, signal) {
    return this.#ask("/view/features", region, signal);
  }

  /**
   * Where a feature's heat map on a picture of a run is.
   * @param {{ view: string, picture?: number, feature: number, first?: number, last?: number }} query
   */
  viewMapUrl(query) {
    return this.#url("/view/map", query);
  }

  /** @param {string} route @param {object} values */
  #url(route, values) {
    return this.api.apiURL(ROOT + route + asked(values));
  }

  /**
   * @template Answer
   * @param {string} route @param {object} values @param {AbortSignal} [signal] @returns {Promise<Answer>}
   */
  async #ask(route, values, signal) {
    let answer;
    try {
      answer = await this.api.fetchApi(ROOT + route + asked(values), { signal });
    } catch (error) {
      if (wasAborted(error)) throw error;
      throw new Error("ComfyUI does not answer. Is it still running?");
    }
    const body = await answer.json().catch((error) => {
      if (wasAborted(error)) throw error;
      return null;
    });
    if (answer.ok && body !== null) return body;
    throw new Error(problem(answer, body));
  }
}

/** @param {Response} answer @param {unknown} body */
function problem(answer, body) {
  if (typeof body === "object" && body !== null && "error" in body) return String(body.error);
  if (answer.status === 404) return "This ComfyUI has no feature browser. Restart it after an update of Fluxtionary.";
  return `ComfyUI answered ${answer.status} ${answer.statusText}`.trim();
}

/** The query of a route; what is undefined is left out. @param {object} values */
function asked(values) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (value !== undefined && value !== null) query.set(name, String(value));
  }
  const text = query.toString();
  return text && `?${text}`;
}
