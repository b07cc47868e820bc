// The pictures on Read Features and Inspect Picture, and the lines on steering nodes.
import { Hand } from "./hand.mjs";
import { frame, loadApi, nodesOf, run, STEER } from "./host.mjs";
import * as tab from "./tab.mjs";

/** @param {import("playwright-core").Page} page */
export const field = (page) => page.locator(".flx-panel-field").first();

/** The features that a panel lists. */
export async function seen(page) {
  return page.locator(".flx-panel-seen li").evaluateAll((all) =>
    all.map((line) => ({ feature: Number(line.dataset.feature), text: line.textContent })),
  );
}

/** Does something that asks for features of a part of a picture, and waits until they are listed. */
export async function asks(page, act) {
  const answered = page.waitForResponse((response) => response.url().includes("/fluxtionary/view/features"));
  await act();
  await answered;
  await page.waitForFunction(() => !document.querySelector(".flx-panel-run.is-asking"));
  await page.locator(".flx-panel-seen li").first().waitFor();
}

/** Runs a workflow that reads features, and shows the panel. */
export async function readRun(driver, mode, api) {
  const page = await tab.pageWithoutTab(driver, mode);
  await loadApi(page, api);
  const outputs = await run(page);
  const [node] = await nodesOf(page, "FluxtionaryReadFeatures");
  await field(page).waitFor();
  await frame(page, [node.id]);
  await page.waitForFunction(() => document.querySelector(".flx-panel-field img")?.naturalWidth > 0);
  return { page, outputs };
}

/** Clicks a place of a run's picture, looks at the first feature's heat map, and sends it to a steering node. */
export async function pick(driver, { mode, api, at }) {
  const { page, outputs } = await readRun(driver, mode, api);
  const hand = new Hand(page);
  await asks(page, () => hand.clickAt(field(page), at, "click the object"));
  await frame(page, [(await nodesOf(page, "FluxtionaryReadFeatures"))[0].id]); // with its list
  const listed = await seen(page);
  const first = page.locator(".flx-panel-seen li button").first();
  await hand.hover(first);
  const map = page.locator(".flx-panel-field img.flx-panel-map");
  await map.waitFor();
  const drawn = await map.evaluate((image) => image.decode().then(() => [image.naturalWidth, image.naturalHeight]));
  await hand.click(first, "steer with it");
  return { outputs, listed, drawn, steering: await nodesOf(page, STEER), ...hand.told };
}
