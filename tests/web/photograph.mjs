// Pictures of the feature browser for the README.
import { Hand } from "./hand.mjs";
import { frame, loadApi, run } from "./host.mjs";
import { asks, field } from "./panels.mjs";
import * as tab from "./tab.mjs";

/**
 * A run that is looked into beside the tab: a search's answer, or the page of its first feature where it is to be `opened`.
 */
export async function photograph(driver, { mode, dark, api, text, opened, at, out }) {
  const { page, context } = await driver.fresh({ mode, dark, size: [1680, 945] });
  try {
    await loadApi(page, api);
    await run(page);
    const hand = new Hand(page);
    await tab.openTab(hand);
    const found = await tab.search(hand, text);
    if (opened) await tab.openFeature(hand, found[0].feature);
    else await hand.click(page.getByRole("button", { name: "Heat maps" }));
    await page.waitForTimeout(2500);
    await page.evaluate(layOut);
    await frame(page, null, await page.evaluate(() => document.querySelector(".flx").getBoundingClientRect().right + 40));
    await asks(page, () => hand.clickAt(field(page), at));
    await page.locator(".flx-panel-seen .flx-panel-steer").first().focus();
    await page.mouse.move(5, 940);
    await page.waitForTimeout(4000);
    await page.screenshot({ path: out });
  } finally {
    await context.close();
  }
}

/** What is looked at in the middle, what leads there small on its left. */
function layOut() {
  const of = (type, at = 0) => app.graph._nodes.filter((node) => node.type === type).at(at);
  const places = [
    [of("FluxtionaryLoadDemoFlux"), 0, 0],
    [of("FluxtionaryLoadDictionary"), 0, 150],
    [of("CLIPTextEncode"), 0, 270],
    [of("CLIPTextEncode", 1), 0, 430],
    [of("EmptySD3LatentImage"), 0, 590],
    [of("FluxtionaryTap"), 330, 0],
    [of("KSampler"), 330, 170],
    [of("VAEDecode"), 330, 490],
    [of("FluxtionaryReadFeatures"), 650, 0],
    [of("FluxtionarySteerWithFeature"), 1130, 0],
    [of("KSampler", 1), 1130, 420],
    [of("VAEDecode", 1), 330, 590],
    [of("SaveImage"), 1450, 0],
  ];
  for (const [node, x, y] of places) node.pos = [x, y];
  const read = of("FluxtionaryReadFeatures");
  read.setSize([440, read.size[1]]);
  of("SaveImage").setSize([300, 360]);
  app.canvas.setDirty(true, true);
}
