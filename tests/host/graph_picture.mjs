// Opens a workflow in ComfyUI's own frontend, runs it, and takes a picture of the graph:
//   node graph_picture.mjs URL WORKFLOW.json OUT.png CHROMIUM
// Prints the API form that the frontend makes of the workflow, so that the twin in the repository can be compared.
import { readFile } from "node:fs/promises";
import { chromium } from "../web/node_modules/playwright-core/index.mjs";

const [url, workflow, out, executablePath] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath,
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
});
const page = await browser.newPage({ viewport: { width: 1840, height: 980 } });
await page.goto(url, { waitUntil: "domcontentloaded" });
await page.waitForFunction(() => globalThis.app?.graph && document.querySelector("canvas"), null, { timeout: 120_000 });
await page.waitForTimeout(3000);

const graph = JSON.parse(await readFile(workflow, "utf8"));
await page.evaluate((data) => app.loadGraphData(data), graph);
await page.waitForTimeout(1000);
const prompt = await page.evaluate(async () => (await app.graphToPrompt()).output);
await page.evaluate(() => app.queuePrompt(0, 1));
await page.waitForFunction(
  () => app.graph._nodes.filter((node) => node.type === "SaveImage").every((node) => node.imgs?.length),
  null,
  { timeout: 120_000 },
);
await page.evaluate(() => {
  const boxes = app.graph._nodes.map((node) => [...node.pos, node.pos[0] + node.size[0], node.pos[1] + node.size[1]]);
  const left = Math.min(...boxes.map((box) => box[0])), top = Math.min(...boxes.map((box) => box[1])) - 40;
  const right = Math.max(...boxes.map((box) => box[2])), bottom = Math.max(...boxes.map((box) => box[3]));
  const scale = Math.min(1, 1700 / (right - left), 840 / (bottom - top));
  app.canvas.ds.scale = scale;
  app.canvas.ds.offset = [90 / scale - left, 100 / scale - top];
  app.canvas.setDirty(true, true);
});
await page.waitForTimeout(2000);
await page.screenshot({ path: out });
console.log(JSON.stringify(prompt));
await browser.close();
