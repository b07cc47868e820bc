// A user's hand: everything it does is counted, so that tasks can be told by their number of actions.

export class Hand {
  /** @param {import("playwright-core").Page} page */
  constructor(page) {
    this.page = page;
    this.actions = [];
    this.start = Date.now();
  }

  /** @param {import("playwright-core").Locator} target */
  async click(target, what = "click", options = {}) {
    await target.click(options);
    this.actions.push(what);
  }

  async hover(target, what = "hover") {
    await target.hover();
    this.actions.push(what);
  }

  /** Text typed into what has the focus: one action. */
  async type(text) {
    await this.page.keyboard.type(text);
    this.actions.push(`type ${text}`);
  }

  async press(key, times = 1) {
    for (let i = 0; i < times; i += 1) {
      await this.page.keyboard.press(key);
      this.actions.push(key);
    }
  }

  /** A drag over a part of an element, from and to in shares of its size. */
  async drag(target, from, to, what = "drag") {
    const box = await target.boundingBox();
    const at = ([x, y]) => [box.x + x * box.width, box.y + y * box.height];
    await this.page.mouse.move(...at(from));
    await this.page.mouse.down();
    await this.page.mouse.move(...at(to), { steps: 4 });
    await this.page.mouse.up();
    this.actions.push(what);
  }

  /** @param {[number, number]} place in shares of the element's size */
  async clickAt(target, [x, y], what = "click") {
    const box = await target.boundingBox();
    await target.click({ position: { x: x * box.width, y: y * box.height } });
    this.actions.push(what);
  }

  get told() {
    return { actions: this.actions, count: this.actions.length, seconds: (Date.now() - this.start) / 1000 };
  }
}
