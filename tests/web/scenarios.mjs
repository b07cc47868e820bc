// What the tests have a user do. Each takes the driver and what the test gives, and tells what came of it.
import { Hand } from "./hand.mjs";
import { frame, loadApi, loadWorkflow, nodesOf, promptOf, ready, run, savedWorkflow, STEER, titleOf } from "./host.mjs";
import * as tab from "./tab.mjs";

export * from "./panels.mjs";
export * from "./photograph.mjs";
export * from "./hostile.mjs";
export * from "./tasks.mjs";
export * from "./timing.mjs";

/** Opens a workflow, searches a label, opens the first feature, sends it to the selected steering node, and runs. */
export async function steer(driver, { mode, workflow, text }) {
  const page = await tab.pageWithoutTab(driver, mode);
  await loadWorkflow(page, workflow);
  const before = await run(page);
  await frame(page, null, 420);
  const hand = new Hand(page);
  await hand.click(await titleOf(page, (await nodesOf(page, STEER))[0].id), "select the node");
  await tab.openTab(hand);
  const found = await tab.search(hand, text);
  await tab.openFeature(hand, found[0].feature);
  await tab.steerWithThis(hand);
  const after = await run(page);
  return { found, before, after, steering: await nodesOf(page, STEER), ...hand.told };
}

/** Saves what is on the graph, opens the page anew, loads it again: what was saved, and what Run would post. */
export async function reopen(driver, { mode }) {
  const { page } = await driver.page(mode);
  const saved = await savedWorkflow(page);
  const before = await promptOf(page);
  await page.reload({ waitUntil: "domcontentloaded" });
  await ready(page);
  await loadWorkflow(page, saved);
  return { saved, before, after: await promptOf(page), again: await savedWorkflow(page) };
}

/** From the tab's button to a steering node that runs, by keys alone. */
export async function keyboard(driver, { mode, api, text }) {
  const page = await tab.pageWithoutTab(driver, mode);
  await loadApi(page, api);
  const hand = new Hand(page);
  await page.evaluate(() => document.activeElement?.blur());
  await tabTo(hand, tab.tabButton(page));
  await hand.press("Enter");
  await tabTo(hand, tab.searchBox(page));
  const found = await tab.search(hand, text);
  await hand.press("ArrowDown");
  await hand.press("Enter");
  await tab.pageOf(page, found[0].feature);
  await tabTo(hand, tab.featurePage(page).getByRole("button", { name: "Steer with this" }));
  await hand.press("Enter");
  await page.waitForFunction((type) => app.graph._nodes.some((node) => node.type === type), STEER);
  await hand.press("Escape");
  await tab.cells(page).first().waitFor();
  const back = await page.evaluate(() => Number(document.activeElement?.dataset?.feature));
  return { found, back, steering: await nodesOf(page, STEER), after: await run(page), ...hand.told };
}

/** Presses Tab until something has the focus. */
async function tabTo(hand, target, most = 80) {
  await target.waitFor();
  for (let i = 0; i <= most; i += 1) {
    if (await target.evaluate((element) => element === document.activeElement)) return;
    await hand.press("Tab");
  }
  throw new Error(`not reached with ${most} presses of Tab`);
}
