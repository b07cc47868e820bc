// The feature browser's tab, found as a user finds it: by what stands there.

const TAB = ".fluxtionary-tab-button";

/** A mode's page, with the tab closed. */
export async function pageWithoutTab(driver, mode) {
  const { page } = await driver.page(mode);
  await closeTab(page);
  return page;
}

/** @param {import("./hand.mjs").Hand} hand opens the tab where it is closed */
export async function openTab(hand) {
  const { page } = hand;
  if (!(await isOpen(page))) await hand.click(page.locator(TAB), "open the tab");
  await searchBox(page).waitFor();
}

/** Closes the tab where it is open, with its list in sight, not a feature's page, when it opens again. */
async function closeTab(page) {
  if (await isOpen(page)) {
    while (await featurePage(page).count()) await featurePage(page).locator(".flx-back").click();
    await page.locator(TAB).click();
  }
  await searchBox(page).waitFor({ state: "detached" });
}

export const tabButton = (page) => page.locator(TAB);
const isOpen = (page) => page.evaluate(() => app.extensionManager.sidebarTab.activeSidebarTabId === "fluxtionary");

export const searchBox = (page) => page.getByRole("searchbox", { name: /search features/i });
export const cells = (page) => page.locator(".flx-grid [role=gridcell][data-feature]");
export const featurePage = (page) => page.locator("article.flx-page:visible");

/** Waits until the grid shows what was asked for: its request is answered, and cells are filled. */
export async function listed(page, act, question) {
  const answered = page.waitForResponse((response) => {
    const url = new URL(response.url());
    return url.pathname.endsWith("/fluxtionary/features") && question(url.searchParams);
  });
  await act();
  await answered;
  await cells(page).first().waitFor();
  await page.waitForFunction(() => !document.querySelector(".flx-grid [role=gridcell][aria-busy]"));
}

/** Types a search and waits for its answer; returns what is listed first. */
export async function search(hand, text) {
  const { page } = hand;
  const box = searchBox(page);
  if (!(await box.evaluate((element) => element === document.activeElement))) await hand.click(box, "click the search");
  if (await box.inputValue()) await hand.press("Control+a");
  await listed(page, () => hand.type(text), (asked) => asked.get("text") === text);
  return shown(page);
}

/** The features that are listed, in order, as far as they are in the document. */
export async function shown(page) {
  return cells(page).evaluateAll((all) =>
    all
      .map((cell) => ({
        index: Number(cell.dataset.index),
        feature: Number(cell.dataset.feature),
        label: cell.querySelector(".flx-name:not(.flx-unnamed)")?.textContent ?? null,
      }))
      .sort((one, other) => one.index - other.index),
  );
}

export async function openFeature(hand, feature) {
  const { page } = hand;
  await hand.click(page.locator(`.flx-grid [role=gridcell][data-feature="${feature}"]`), "open the feature");
  await pageOf(page, feature);
}

/** Waits for a feature's page. */
export async function pageOf(page, feature) {
  await featurePage(page).locator(".flx-number", { hasText: `#${feature}` }).waitFor();
}

export async function steerWithThis(hand) {
  await hand.click(featurePage(hand.page).getByRole("button", { name: "Steer with this" }), "Steer with this");
}
