/** A long list that lies on the server, fetched a page at a time as its parts come into sight. */

/** @import { Page, Row } from "./types.js" */

import { wasAborted } from "./server.mjs";

const SIZE = 60;

export class Pages {
  /** @type {Map<number, Row[]>} */
  #pages = new Map();
  /** @type {Map<number, AbortController>} */
  #asked = new Map();
  #stopped = false;

  /**
   * @param {(offset: number, limit: number, signal: AbortSignal) => Promise<Page>} ask
   * @param {() => void} changed something has come
   * @param {(error: unknown) => void} failed
   */
  constructor(ask, changed, failed) {
    this.ask = ask;
    this.changed = changed;
    this.failed = failed;
    /** How many rows there are, as far as is known. */
    this.count = 0;
  }

  /** Fetch the first page; false where a newer list has taken this one's place. @returns {Promise<boolean>} */
  async begin() {
    await this.#fetch(0);
    return this.#pages.has(0) && !this.#stopped;
  }

  /** A row, where it is here already. @param {number} index @returns {Row | undefined} */
  row(index) {
    return this.#pages.get(Math.floor(index / SIZE))?.[index % SIZE];
  }

  /**
   * Fetch what rows first to last need, and give up what nothing needs any more.
   * @param {number} first @param {number} last
   */
  want(first, last) {
    const from = Math.floor(Math.max(first, 0) / SIZE);
    const to = Math.floor(Math.max(Math.min(last, this.count - 1), 0) / SIZE);
    for (const [page, asked] of this.#asked) if (page < from || page > to) asked.abort();
    for (let page = from; page <= to; page++) void this.#fetch(page);
  }

  stop() {
    this.#stopped = true;
    for (const asked of this.#asked.values()) asked.abort();
  }

  /** @param {number} page */
  async #fetch(page) {
    if (this.#stopped || this.#pages.has(page) || this.#asked.has(page)) return;
    const asked = new AbortController();
    this.#asked.set(page, asked);
    try {
      const { features, total, more } = await this.ask(page * SIZE, SIZE, asked.signal);
      this.#pages.set(page, features);
      const known = page * SIZE + features.length + (more ? SIZE : 0);
      this.count = total ?? (more ? Math.max(this.count, known) : known);
      if (!this.#stopped) this.changed();
    } catch (error) {
      if (!this.#stopped && !wasAborted(error)) this.failed(error);
    } finally {
      this.#asked.delete(page);
    }
  }
}
