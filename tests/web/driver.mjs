// Chromium for the tests: `node driver.mjs URL CHROMIUM`. A line of JSON in, {"do": NAME, ...}, is a line of JSON out,
// {"value": ...} or {"error": text}. What can be done are the functions that `scenarios.mjs` exports.
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";
import { openPage, settle } from "./host.mjs";
import * as scenarios from "./scenarios.mjs";

const [url, executablePath] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath,
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
});
/** Pages that are open, by how they draw nodes. */
const pages = new Map();
const driver = {
  url,
  browser,
  /** The page of a mode, opened where it is not. */
  async page(mode) {
    await settle(url, mode); // another page may have set the other mode meanwhile
    if (!pages.has(mode)) pages.set(mode, await openPage(browser, url, { mode }));
    return pages.get(mode);
  },
  /** A page of its own, to be closed by who asks for it. */
  fresh: (options) => openPage(browser, url, options),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { do: name, ...given } = JSON.parse(line);
  const trace = process.env.FLUXTIONARY_SHOTS; // a folder: what the page shows where something cannot be done
  try {
    const value = await scenarios[name](driver, given);
    console.log(JSON.stringify({ value: value ?? null }));
  } catch (error) {
    if (trace) await pages.get(given.mode)?.page.screenshot({ path: `${trace}/${name}-${given.mode}.png` }).catch(() => {});
    console.log(JSON.stringify({ error: String(error?.stack ?? error) }));
  }
}
await browser.close();
