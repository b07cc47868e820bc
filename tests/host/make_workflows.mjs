// Lays API workflows out as graphs in ComfyUI's own frontend:
//   node make_workflows.mjs URL JOBS.json CHROMIUM
// JOBS.json is a list of {api, titles, notes, out, png}; writes the workflow to `out` and a picture of it to `png`, and
// the API form that the frontend makes of it back into JOBS.json, as `made`.
import { readFile, writeFile } from "node:fs/promises";
import { chromium } from "../web/node_modules/playwright-core/index.mjs";

const [url, list, executablePath] = process.argv.slice(2);
const jobs = JSON.parse(await readFile(list, "utf8"));
const browser = await chromium.launch({
  executablePath,
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
});
const page = await browser.newPage({ viewport: { width: 1840, height: 980 } });
await page.goto(url, { waitUntil: "domcontentloaded" });
await page.waitForFunction(() => globalThis.app?.graph && document.querySelector("canvas"), null, { timeout: 120_000 });
await page.waitForTimeout(3000);

for (const job of jobs) {
  await page.evaluate((job) => app.loadApiJson(job.api, job.name), job);
  await page.waitForTimeout(800);
  await page.evaluate(layOut, job);
  await page.waitForTimeout(500);
  const [graph, made] = await page.evaluate(async () => {
    const graph = app.graph.serialize();
    return [graph, (await app.graphToPrompt()).output];
  });
  for (const node of graph.nodes) delete node.properties?.["Node name for S&R"];
  graph.extra = {};
  await writeFile(job.out, JSON.stringify(graph, null, 1) + "\n");
  job.made = made;
  await page.evaluate(fit);
  await page.waitForTimeout(1500);
  await page.screenshot({ path: job.png });
}
await writeFile(list, JSON.stringify(jobs));
await browser.close();

// Columns from left to right as the data flows, each node as far right as what it feeds allows; notes above.
function layOut(job) {
  const nodes = app.graph._nodes;
  const feeds = (node) =>
    (node.outputs ?? []).flatMap((slot) => (slot.links ?? []).map((id) => app.graph.getNodeById(app.graph.links.get
      ? app.graph.links.get(id).target_id : app.graph.links[id].target_id)));
  const depth = new Map();
  const measure = (node) => {
    if (!depth.has(node.id)) depth.set(node.id, 1 + Math.max(-1, ...feeds(node).map(measure)));
    return depth.get(node.id);
  };
  const deepest = Math.max(...nodes.map(measure));
  const columns = Array.from({ length: deepest + 1 }, () => []);
  for (const node of nodes) columns[deepest - depth.get(node.id)].push(node);
  const least = { CLIPTextEncode: [340, 110], SaveImage: [270, 300], PreviewImage: [270, 300], PreviewAny: [330, 330] };
  let x = 60;
  for (const column of columns) {
    let y = 200;
    let width = 0;
    for (const node of column.sort((a, b) => a.id - b.id)) {
      const own = node.computeSize();
      const [wide, tall] = least[node.type] ?? [270, 60];
      node.setSize([Math.max(own[0], wide), Math.max(own[1], tall)]);
      if (job.titles[node.id]) node.title = job.titles[node.id];
      const control = node.widgets?.find((widget) => widget.name === "control_after_generate");
      if (control) control.value = "fixed";
      node.pos = [x, y];
      y += node.size[1] + 70;
      width = Math.max(width, node.size[0]);
    }
    x += width + 60;
  }
  const note = LiteGraph.createNode("MarkdownNote");
  app.graph.add(note);
  note.title = "What this is";
  note.widgets[0].value = job.note;
  const tall = 70 + 20 * Math.ceil(job.note.length / 120);
  note.pos = [60, 130 - tall];
  note.setSize([820, tall]);
  app.canvas.setDirty(true, true);
}

function fit() {
  const boxes = app.graph._nodes.map((node) => [...node.pos, node.pos[0] + node.size[0], node.pos[1] + node.size[1]]);
  const left = Math.min(...boxes.map((box) => box[0])), top = Math.min(...boxes.map((box) => box[1])) - 40;
  const right = Math.max(...boxes.map((box) => box[2])), bottom = Math.max(...boxes.map((box) => box[3]));
  const scale = Math.min(1, 1700 / (right - left), 860 / (bottom - top));
  app.canvas.ds.scale = scale;
  app.canvas.ds.offset = [90 / scale - left, 90 / scale - top];
  app.canvas.setDirty(true, true);
}
