// Tasks as an artist has them, timed by the number of actions.
import { Hand } from "./hand.mjs";
import { frame, loadApi, loadWorkflow, nodesOf, promptOf, run, STEER } from "./host.mjs";
import { asks, field, readRun, seen } from "./panels.mjs";
import * as tab from "./tab.mjs";

/** "Make this circle blue without touching the prompt": from a plain workflow to a steered picture. */
export async function recolor(driver, { mode, api, text }) {
  const { page, context } = await driver.fresh({ mode });
  try {
    await loadApi(page, api);
    const before = await run(page);
    const hand = new Hand(page);
    await tab.openTab(hand);
    const found = await tab.search(hand, text);
    await tab.openFeature(hand, found[0].feature);
    await tab.steerWithThis(hand);
    const after = await pressRun(hand);
    return { found, before, after, steering: await nodesOf(page, STEER), ...hand.told };
  } finally {
    await context.close();
  }
}

/** Presses the keys that run the workflow. */
async function pressRun(hand) {
  return run(hand.page, () => hand.press("Control+Enter"));
}

/**
 * "Which feature draws the background, and switch it off on the left half": from a run that was watched, by a click on
 * the background, a steering node set to take the feature out, and the host's mask editor.
 */
export async function background(driver, { mode, api, at }) {
  const { page, outputs } = await readRun(driver, mode, api);
  const hand = new Hand(page);
  await asks(page, () => hand.clickAt(field(page), at, "click the background"));
  const listed = await seen(page);
  await hand.click(page.locator(".flx-panel-seen .flx-panel-steer").first(), "steer with it");
  const [{ id }] = await nodesOf(page, STEER);
  await frame(page, [id]);
  await setWidget(hand, id, "mode", "ablate");
  await setWidget(hand, id, "strength", 1);
  await setWidget(hand, id, "end_percent", 1);
  await hand.click(page.locator(".flx-panel-acting button").first(), "paint where");
  await paintLeft(hand);
  await page.waitForFunction(
    (id) => app.graph.getNodeById(id).inputs.find((slot) => slot.name === "mask").link !== null,
    id,
  );
  const after = await pressRun(hand);
  return { before: outputs, after, listed, prompt: await promptOf(page), ...hand.told };
}

/** Sets a widget as its own editor does; counted as two actions, to open it and to choose. */
async function setWidget(hand, id, name, value) {
  await hand.page.evaluate(
    ([id, name, value]) => {
      const widget = app.graph.getNodeById(id).widgets.find((one) => one.name === name);
      widget.value = value;
      widget.callback?.(value);
    },
    [id, name, value],
  );
  hand.actions.push(`open ${name}`, `set ${value}`);
}

/** Paints the left half of what the host's mask editor shows with a wide brush, and saves it. */
async function paintLeft(hand) {
  const { page } = hand;
  const canvas = page.locator("#maskEditorCanvasContainer canvas").first();
  await canvas.waitFor();
  await page.waitForTimeout(1000);
  for (const x of [0.06, 0.18, 0.3, 0.42]) await hand.drag(canvas, [x, 0.02], [x, 0.98], "stroke");
  await hand.click(page.getByRole("button", { name: "Save", exact: true }), "save");
  await canvas.waitFor({ state: "detached" });
}

/** "Make a vector from two prompts and keep it": from the template, with a node that is looked for by its name. */
export async function vector(driver, { mode, workflow, file }) {
  const page = await tab.pageWithoutTab(driver, mode);
  await loadWorkflow(page, workflow);
  await frame(page);
  const hand = new Hand(page);
  const empty = await page.evaluate(() => {
    const { scale, offset } = app.canvas.ds;
    const bottom = Math.max(...app.graph._nodes.map((node) => node.pos[1] + node.size[1]));
    const whole = app.canvas.canvas.getBoundingClientRect();
    return [whole.left + whole.width / 2, Math.min(whole.bottom - 90, whole.top + (bottom + 60 + offset[1]) * scale)];
  });
  await page.mouse.dblclick(...empty);
  hand.actions.push("double click");
  const search = page.locator(".comfy-vue-node-search-container input, input[placeholder*='Search Nodes']").first();
  await search.waitFor();
  await hand.type("Save Steering Vector");
  await page.locator("[role=option]").filter({ hasText: "Save Steering Vector" }).first().waitFor();
  await hand.press("Enter");
  await page.waitForFunction(() => app.graph._nodes.some((node) => node.type === "FluxtionarySaveSteeringVector"));
  await page.waitForTimeout(500);
  const [from, to, id] = await page.evaluate(() => {
    const of = (type) => app.graph._nodes.find((node) => node.type === type);
    const { scale, offset } = app.canvas.ds;
    const whole = app.canvas.canvas.getBoundingClientRect();
    const seen = ([x, y]) => [whole.left + (x + offset[0]) * scale, whole.top + (y + offset[1]) * scale];
    const [made, kept] = [of("FluxtionaryContrastPrompts"), of("FluxtionarySaveSteeringVector")];
    return [seen(made.getOutputPos(0)), seen(kept.getInputPos(0)), kept.id];
  });
  await page.mouse.move(...from);
  await page.mouse.down();
  await page.mouse.move((from[0] + to[0]) / 2, (from[1] + to[1]) / 2, { steps: 3 });
  await page.mouse.move(...to, { steps: 5 });
  await page.mouse.up();
  hand.actions.push("connect");
  await page.waitForFunction((id) => app.graph.getNodeById(id).inputs[0].link !== null, id);
  await setWidget(hand, id, "name", file);
  await pressRun(hand);
  return hand.told;
}
