// What the feature browser costs: the start of ComfyUI's page with and without it, its tab and its search.
import { openPage } from "./host.mjs";
import * as tab from "./tab.mjs";

const ENTRY = "/fluxtionary.js";

/** Opens ComfyUI anew and tells when it stood there, in milliseconds, and which of the pack's files it loaded. */
export async function start(driver, { without = false }) {
  const prepare = async (context) => {
    await context.addInitScript(watchStart);
    if (without) await context.route(/\/extensions$/, leaveOut);
  };
  const { page, context } = await openPage(driver.browser, driver.url, { mode: "classic", prepare });
  try {
    await page.waitForTimeout(500);
    return await page.evaluate(() => ({
      ready: globalThis.readyAt,
      files: performance
        .getEntriesByType("resource")
        .filter(({ name }) => /\/extensions\/(?!core\/)/.test(name))
        .map(({ name, decodedBodySize, duration }) => ({ name: new URL(name).pathname, bytes: decodedBodySize, ms: duration })),
    }));
  } finally {
    await context.close();
  }
}

/** The list of extensions without ours. */
async function leaveOut(route) {
  const answer = await route.fetch();
  await route.fulfill({ response: answer, json: (await answer.json()).filter((name) => !name.endsWith(ENTRY)) });
}

function watchStart() {
  const timer = setInterval(() => {
    if (!globalThis.app?.graph || !document.querySelector(".side-tool-bar-container button")) return;
    globalThis.readyAt = performance.now();
    clearInterval(timer);
  }, 2);
}

/**
 * Opens a page and the tab in it on an atlas: milliseconds from the click until features are listed, and until the
 * pictures in sight are there; then searches, each from the last key until its answer is listed.
 */
export async function latency(driver, { atlas, searches }) {
  const prepare = (context) => context.addInitScript((key) => localStorage.setItem("fluxtionary.atlas", key), `atlas:${atlas}`);
  const { page, context } = await openPage(driver.browser, driver.url, { mode: "classic", prepare });
  try {
    await page.waitForTimeout(1000);
    const opened = await page.evaluate(openTab);
    await tab.cells(page).first().waitFor();
    const found = [];
    for (const text of searches) found.push({ text, ...(await page.evaluate(searchFor, text)) });
    return { ...opened, searches: found };
  } finally {
    await context.close();
  }
}

async function openTab() {
  const start = performance.now();
  document.querySelector(".fluxtionary-tab-button").click();
  const until = (good) =>
    new Promise((resolve, reject) => {
      const look = () => {
        if (good()) resolve(performance.now() - start);
        else if (performance.now() - start > 60_000) reject(new Error("the tab did not open"));
        else requestAnimationFrame(look);
      };
      look();
    });
  const cells = () => [...document.querySelectorAll(".flx-grid [role=gridcell]")];
  const listed = await until(() => cells().length && cells().every((cell) => cell.dataset.feature));
  const pictures = await until(() => [...document.querySelectorAll(".flx-grid img:first-child")].some((image) => image.naturalWidth));
  return { listed, pictures };
}

/** @param {string} text */
async function searchFor(text) {
  const box = document.querySelector(".flx-search");
  let changed = 0;
  const observer = new MutationObserver(() => (changed = performance.now()));
  observer.observe(document.querySelector(".flx-space"), { childList: true });
  const start = performance.now();
  box.value = text;
  box.dispatchEvent(new InputEvent("input", { bubbles: true }));
  const asked = () =>
    performance.getEntriesByType("resource").find(({ name, startTime }) => {
      if (startTime < start || !name.includes("/fluxtionary/features?")) return false;
      return new URL(name).searchParams.get("text") === text;
    });
  return new Promise((resolve, reject) => {
    const look = () => {
      const entry = asked();
      const done = entry && changed >= entry.responseEnd && !document.querySelector(".flx-grid [aria-busy]");
      if (!done && performance.now() - start < 30_000) return void requestAnimationFrame(look);
      observer.disconnect();
      if (done) resolve({ listed: changed - start, server: entry.responseEnd - entry.startTime });
      else reject(new Error(`no answer to ${text}`));
    };
    look();
  });
}
