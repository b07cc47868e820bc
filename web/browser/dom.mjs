/** Elements without a framework. Text only ever becomes text: nothing here reads markup. */

const SVG = "http://www.w3.org/2000/svg";

/** @typedef {Node | string | number | null | undefined | false} Child */
/** @typedef {Record<string, unknown>} Props */

/**
 * An element: `make("button", { class: "plain", onclick: open, "aria-pressed": "true" }, "Open")`.
 * A prop named as a property of the element is set as one, any other as an attribute; `class`, `style` (an object)
 * and `data` (an object) are themselves. A prop that is null, undefined or false is left out.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Props | null} [props]
 * @param {...(Child | Child[])} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function make(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") element.className = String(value);
    else if (name === "style") style(element, /** @type {Record<string, string | number>} */ (value));
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name in element && !name.startsWith("aria-")) Reflect.set(element, name, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...wanted(children));
  return element;
}

/**
 * An element of a drawing; props are attributes.
 * @template {keyof SVGElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string | number> | null} [props]
 * @param {...(Child | Child[])} children
 * @returns {SVGElementTagNameMap[Tag]}
 */
export function draw(tag, props, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(props ?? {})) element.setAttribute(name, String(value));
  element.append(...wanted(children));
  return element;
}

/**
 * Put these in place of what an element holds.
 * @param {Element} element
 * @param {...(Child | Child[])} children
 */
export function fill(element, ...children) {
  element.replaceChildren(...wanted(children));
}

/**
 * Properties of an element's style, custom ones too.
 * @param {HTMLElement} element
 * @param {Record<string, string | number>} properties
 */
export function style(element, properties) {
  for (const [name, value] of Object.entries(properties)) element.style.setProperty(name, String(value));
}

/**
 * Load a style sheet once, beside the module whose `import.meta.url` is given.
 * @param {string} name
 * @param {string} module
 */
export function loadStyle(name, module) {
  const href = new URL(name, module).href;
  if ([...document.styleSheets].some((sheet) => sheet.href === href)) return;
  if ([...document.querySelectorAll("link")].some((link) => link.href === href)) return;
  document.head.append(make("link", { rel: "stylesheet", href }));
}

/**
 * A function that acts at once; calls that follow within a pause act together, once, with what the last one gave.
 * @template {unknown[]} Values
 * @param {(...values: Values) => void} act @param {number} milliseconds the pause
 * @returns {(...values: Values) => void}
 */
export function paced(act, milliseconds) {
  /** @type {Values | undefined} */
  let next;
  let resting = true;
  const go = (/** @type {Values} */ values) => {
    resting = false;
    setTimeout(() => {
      resting = true;
      if (next) go(next);
    }, milliseconds);
    next = undefined;
    act(...values);
  };
  return (...values) => {
    if (resting) go(values);
    else next = values;
  };
}

/** @param {(Child | Child[])[]} children */
function wanted(children) {
  return children
    .flat()
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (typeof child === "number" ? String(child) : /** @type {Node | string} */ (child)));
}
