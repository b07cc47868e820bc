/** What ComfyUI loads with every start, so it is small: all else is fetched when it is first needed. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { reserve } from "./panels/place.mjs";

/** @import { GraphNode } from "./host.js" */

/** @type {typeof import("./browser/tab.mjs") | undefined} */
let tab;
/** @type {typeof import("./panels/panels.mjs") | undefined} */
let panels;

/** @param {HTMLElement} container */
async function open(container) {
  try {
    if (!tab) {
      tab = await import("./browser/tab.mjs");
      if (!container.isConnected) return; // closed meanwhile
    }
    tab.show(container, app, api);
  } catch (error) {
    container.textContent = `The feature browser could not be loaded: ${error}`;
  }
}

/** @param {GraphNode} node */
async function attach(node) {
  try {
    panels ??= await import("./panels/panels.mjs");
    panels.attach(node, app, api);
  } catch (error) {
    console.error("Fluxtionary: the panel of a node could not be made", error);
  }
}

app.registerExtension({
  name: "fluxtionary",
  setup() {
    app.extensionManager.registerSidebarTab({
      id: "fluxtionary",
      icon: "pi pi-compass",
      title: "Features",
      tooltip: "Features: what Flux can think of, to find and to steer with",
      type: "custom",
      render: open,
      destroy: () => tab?.leave(),
    });
  },
  nodeCreated(node) {
    if (!(node.comfyClass ?? node.type)?.startsWith("Fluxtionary")) return;
    // at once, as the newer nodes do not draw what is added to a node later
    if (reserve(node, app)) void attach(node);
  },
});
