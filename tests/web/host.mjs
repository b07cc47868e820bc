// ComfyUI's own frontend, driven as a user drives it: pages, workflows, runs.

export const STEER = "FluxtionarySteerWithFeature";
const SECONDS = 180_000;

/**
 * A page with ComfyUI's frontend, ready for work.
 * @param {import("playwright-core").Browser} browser
 * @param {string} url
 * @param {{mode: "classic" | "newer", dark?: boolean, size?: [number, number], prepare?: (context: import("playwright-core").BrowserContext) => Promise<void>}} options
 *   `mode`: nodes are drawn on the canvas, or as elements of the page; `prepare` is called before anything is loaded
 */
export async function openPage(browser, url, { mode, dark = true, size = [1600, 900], prepare }) {
  await settle(url, mode, dark);
  const context = await browser.newContext({ viewport: { width: size[0], height: size[1] } });
  await prepare?.(context);
  const page = await context.newPage();
  page.setDefaultTimeout(SECONDS);
  const requests = [];
  page.on("request", (request) => requests.push(request.url()));
  await page.goto(url, { waitUntil: "domcontentloaded", timeout: SECONDS });
  await ready(page);
  await page.waitForFunction((newer) => (LiteGraph.vueNodesMode === true) === newer, mode === "newer", {
    timeout: 20_000,
  });
  return { page, context, requests, mode };
}

/** The server's settings, which a page takes when it is loaded, also when it is loaded again. */
export async function settle(url, mode, dark = true) {
  const answer = await fetch(`${url}/settings`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({
      "Comfy.TutorialCompleted": true,
      "Comfy.Minimap.Visible": false,
      "Comfy.VueNodes.Enabled": mode === "newer",
      "Comfy.ColorPalette": dark ? "dark" : "light",
    }),
  });
  if (!answer.ok) throw new Error(`the server does not take settings: ${answer.status} ${await answer.text()}`);
}

/** Waits until the frontend has set itself up, extensions included. */
export async function ready(page) {
  await page.waitForFunction(
    () => globalThis.app?.graph && globalThis.app.extensionManager?.registerSidebarTab && app.vueAppReady !== false,
    null,
    { timeout: SECONDS },
  );
  await page.waitForSelector(".side-tool-bar-container, .side-bar-panel, nav", { timeout: SECONDS });
}

/** Puts a workflow on the graph in place of what is there. */
export async function loadWorkflow(page, workflow) {
  await page.evaluate((data) => app.loadGraphData(data), workflow);
  await page.waitForFunction((count) => app.graph._nodes.length === count, workflow.nodes.length);
}

/** The same of a workflow in API form; its seeds stay as they are. */
export async function loadApi(page, api) {
  await page.evaluate((api) => {
    app.loadApiJson(api, "test");
    for (const { widgets } of app.graph._nodes) {
      const control = widgets?.find((widget) => widget.name === "control_after_generate");
      if (control) control.value = "fixed";
    }
  }, api);
  await page.waitForFunction((count) => app.graph._nodes.length === count, Object.keys(api).length);
  await page.waitForTimeout(300);
}

/** What "save" writes to a file. */
export const savedWorkflow = (page) => page.evaluate(() => JSON.parse(JSON.stringify(app.graph.serialize())));

/** What the frontend posts when a user presses Run. */
export const promptOf = (page) => page.evaluate(async () => (await app.graphToPrompt()).output);

/**
 * Runs the workflow, by default as the Run button does, and waits for the end. Returns what the nodes that save and
 * read show then, by node id, also those that had nothing to do anew. Throws what the server says.
 */
export async function run(page, press = () => page.evaluate(() => void app.queuePrompt(0, 1))) {
  await page.evaluate((limit) => {
    const { api } = app;
    globalThis.ended = new Promise((resolve, reject) => {
      const ends = {
        execution_success: () => resolve(null),
        execution_error: ({ detail }) => reject(new Error(`${detail.node_type}: ${detail.exception_message}`)),
        execution_interrupted: () => reject(new Error("interrupted")),
      };
      setTimeout(() => reject(new Error("the workflow did not end")), limit);
      for (const [name, act] of Object.entries(ends)) api.addEventListener(name, act, { once: true });
    });
    globalThis.ended.catch(() => {});
  }, SECONDS);
  await press();
  await page.evaluate(() => globalThis.ended);
  await page.waitForTimeout(100);
  return page.evaluate(() => {
    const saves = (id) => ["SaveImage", "FluxtionaryReadFeatures"].includes(app.graph.getNodeById(id)?.type);
    return Object.fromEntries(Object.entries(app.nodeOutputs ?? {}).filter(([id]) => saves(id)));
  });
}

/** Nodes of a type, as plain data. */
export const nodesOf = (page, type) =>
  page.evaluate(
    (type) =>
      app.graph._nodes
        .filter((node) => node.type === type)
        .map((node) => ({
          id: node.id,
          values: Object.fromEntries((node.widgets ?? []).map((widget) => [widget.name, widget.value])),
        })),
    type,
  );

/** Moves the view so that these nodes (all without ids) fill it. */
export async function frame(page, ids = null, left = 90) {
  await page.evaluate(
    ([ids, left]) => {
      const nodes = app.graph._nodes.filter((node) => !ids || ids.includes(node.id));
      const boxes = nodes.map((node) => {
        // the newer nodes may be larger than the graph knows
        const drawn = document.querySelector(`[data-node-id="${node.id}"]`)?.getBoundingClientRect();
        const [width, height] = drawn ? [drawn.width, drawn.height].map((x) => x / app.canvas.ds.scale) : [0, 0];
        const size = [Math.max(node.size[0], width), Math.max(node.size[1], height)];
        return [...node.pos, node.pos[0] + size[0], node.pos[1] + size[1]];
      });
      const [x, y] = [0, 1].map((axis) => Math.min(...boxes.map((box) => box[axis])));
      const [right, bottom] = [2, 3].map((axis) => Math.max(...boxes.map((box) => box[axis])));
      const scale = Math.min(1, (innerWidth - left - 60) / (right - x), (innerHeight - 200) / (bottom - y));
      app.canvas.ds.scale = scale;
      app.canvas.ds.offset = [left / scale - x, 120 / scale - y];
      app.canvas.setDirty(true, true);
    },
    [ids, left],
  );
  await page.waitForTimeout(200);
}

/** The place of a node's title on the page, as something to click. */
export async function titleOf(page, id) {
  const [x, y] = await page.evaluate((id) => {
    const node = app.graph.getNodeById(id);
    const { scale, offset } = app.canvas.ds;
    const whole = app.canvas.canvas.getBoundingClientRect();
    return [whole.left + (node.pos[0] + 60 + offset[0]) * scale, whole.top + (node.pos[1] - 14 + offset[1]) * scale];
  }, id);
  return { click: () => page.mouse.click(x, y) };
}
