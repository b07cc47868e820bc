// Pictures of the feature browser for the README.
import { Hand } from "./hand.mjs";
import { frame, loadApi, loadWorkflow, run } from "./host.mjs";
import { asks, field } from "./panels.mjs";
import * as tab from "./tab.mjs";

/**
 * A run that is looked into beside the tab: a search's answer, or the page of its first feature where it is to be `opened`.
 */
export async function photograph(driver, { mode, dark, api, text, opened, at, out }) {
  const { page, context } = await driver.fresh({ mode, dark, size: [1680, 945] });
  try {
    await loadApi(page, api);
    const laid = await page.evaluate(laidOut);
    await loadWorkflow(page, laid.workflow);
    await run(page);
    const hand = new Hand(page);
    await tab.openTab(hand);
    const found = await tab.search(hand, text);
    if (opened) await tab.openFeature(hand, found[0].feature);
    else await hand.click(page.getByRole("button", { name: "Heat maps" }));
    await page.waitForTimeout(2500);
    const left = await page.evaluate(() => document.querySelector(".flx").getBoundingClientRect().right + 40);
    await frame(page, laid.seen, left);
    await asks(page, () => hand.clickAt(field(page), at));
    await page.waitForTimeout(500);
    await frame(page, laid.seen, left); // with the list of features, which makes the node higher
    await page.locator(".flx-panel-seen .flx-panel-steer").first().focus();
    await page.mouse.move(5, 940);
    await page.waitForTimeout(4000);
    await page.screenshot({ path: out });
  } finally {
    await context.close();
  }
}

/** The workflow with what is looked at side by side; what leads there lies far to the left, out of sight. */
function laidOut() {
  const of = (type, at = 0) => app.graph._nodes.filter((node) => node.type === type).at(at);
  const places = [
    [of("FluxtionaryReadFeatures"), 0, 0, 400],
    [of("FluxtionarySteerWithFeature"), 480, 0, 330],
    [of("KSampler", 1), 480, 560, 330],
    [of("SaveImage"), 890, 0, 400, 470],
  ];
  const far = app.graph._nodes.filter((node) => !places.some(([one]) => one === node));
  const workflow = app.graph.serialize();
  const put = (id, pos, size) => {
    const saved = workflow.nodes.find((node) => node.id === id);
    Object.assign(saved, { pos, size: size ?? saved.size });
  };
  for (const [node, x, y, width, height] of places) put(node.id, [x, y], [width, height ?? node.size[1]]);
  for (const [number, node] of far.entries()) put(node.id, [-6000 + 500 * number, 0]);
  return { workflow, seen: places.map(([node]) => node.id) };
}
