/** Which atlas describes a dictionary, and what it says of a feature; asked once and remembered for a while. */

/** @import { Server } from "../browser/server.mjs" */
/** @import { Atlas, Installed, Row } from "../browser/types.js" */

const FRESH_MILLISECONDS = 30_000;
const MOST_ROWS = 500;

/** @typedef {{ atlas: Atlas | null, pending: boolean }} Found `pending`: it may be known later */

export class Atlases {
  /** @param {Server} server */
  constructor(server) {
    this.server = server;
    this.asked = 0;
    /** @type {Promise<Installed> | null} */
    this.installed = null;
    /** @type {Map<string, Promise<Row>>} */
    this.rows = new Map();
  }

  /** The atlas of a dictionary file. @param {string} dictionary @returns {Promise<Found>} */
  async of(dictionary) {
    const { atlases, dictionaries, pending = false } = await this.#installed();
    const file = dictionaries.find((one) => one.name === dictionary);
    const atlas = file?.atlas ? atlases.find((one) => one.id === file.atlas) : undefined;
    if (pending) this.asked = 0;
    return { atlas: atlas ?? null, pending: pending && !atlas };
  }

  /** What an atlas says of a feature. @param {string} atlas @param {number} feature @returns {Promise<Row>} */
  row(atlas, feature) {
    const key = `${feature} ${atlas}`;
    const known = this.rows.get(key);
    if (known) return known;
    const asked = this.server.feature(atlas, feature);
    if (this.rows.size >= MOST_ROWS) this.rows.clear();
    this.rows.set(key, asked);
    asked.catch(() => this.rows.delete(key));
    return asked;
  }

  #installed() {
    if (!this.installed || Date.now() - this.asked > FRESH_MILLISECONDS) {
      this.asked = Date.now();
      this.installed = this.server.installed();
      this.installed.catch(() => (this.installed = null));
    }
    return this.installed;
  }
}
