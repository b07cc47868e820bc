// A pack of hostile atlases: does anything of them run, or ask for anything outside?
import { Hand } from "./hand.mjs";
import { loadApi } from "./host.mjs";
import * as tab from "./tab.mjs";

/** Looks at everything that an atlas shows, for each that is installed; tells what the page did. */
export async function hostile(driver, { mode, api }) {
  const { page, context, requests } = await driver.fresh({ mode });
  const dialogs = [];
  page.on("dialog", (dialog) => dialogs.push(dialog.message()) && dialog.dismiss());
  try {
    await loadApi(page, api);
    const hand = new Hand(page);
    await tab.openTab(hand);
    const choice = page.getByRole("combobox", { name: "Dictionary", exact: true });
    await choice.waitFor();
    const options = await choice.locator("option").evaluateAll((all) => all.map(({ value, label }) => ({ value, label })));
    const told = {};
    for (const { value } of options) {
      // what cannot be used is not asked for
      const answered = page
        .waitForResponse((response) => response.url().includes("/fluxtionary/features?"), { timeout: 3000 })
        .catch(() => null);
      await choice.selectOption(value);
      await answered;
      told[value] = await look(page, hand);
    }
    await page.locator("details.flx-problems summary").click();
    const problems = await page.locator("details.flx-problems li").allTextContents();
    const line = await page.locator(".flx-panel-feature").first().textContent();
    const broken = await page.evaluate(() => globalThis.broken ?? null);
    const foreign = await page.evaluate(
      () => document.querySelectorAll(".flx script, .flx-panel-place script, .flx [onerror], .flx svg[onload], .flx iframe").length,
    );
    return { options, told, problems, line, broken, foreign, dialogs, requests };
  } finally {
    await context.close();
  }
}

/** What the tab says of the chosen atlas; with features, one of its pages too. */
async function look(page, hand) {
  await page.locator(".flx-grid [role=gridcell][data-feature]:visible, .flx-note:visible").first().waitFor();
  await page.waitForTimeout(300);
  const notes = page.locator(".flx-note:visible");
  if (await notes.count()) return (await notes.allTextContents()).join(" ");
  await hand.hover(tab.cells(page).nth(1));
  await tab.cells(page).first().click();
  await tab.featurePage(page).locator(".flx-companion, .flx-wrong").first().waitFor();
  await page.waitForTimeout(300);
  const text = await tab.featurePage(page).textContent();
  await page.keyboard.press("Escape");
  await tab.cells(page).first().waitFor();
  return text;
}
