/** What the panels need of ComfyUI's frontend beyond `../host.d.ts`. */

import type { App, Api, DOMWidgetOptions, GraphNode, Widget } from "../host.js";

export interface PanelWidget extends Widget {
  /** Whether a saved workflow has its value; `options.serialize` says the same of prompts. */
  serialize?: boolean;
  /** Left out when the canvas lays the node out. */
  hidden?: boolean;
}

export interface PanelWidgetOptions extends DOMWidgetOptions {
  /** Events of the element on which the node is selected. */
  selectOn?: string[];
}

export interface SavedNode {
  size?: [number, number];
  widgets_values?: unknown[];
}

export interface PanelNode extends GraphNode {
  onSerialize?: (saved: SavedNode) => void;
  onConnectionsChange?: (...change: unknown[]) => void;
  /** Pictures that the node shows, as the mask editor wants them. */
  imgs?: HTMLImageElement[];
  imageIndex?: number | null;
}

export interface PanelApp extends App {
  canvas: App["canvas"] & {
    processMouseDown(event: PointerEvent): void;
    processMouseMove(event: PointerEvent): void;
    processMouseUp(event: PointerEvent): void;
    processMouseWheel(event: WheelEvent): void;
  };
  extensionManager: App["extensionManager"] & { command: { execute(id: string): Promise<void> } };
  /** What nodes gave when they last ran, by where they are. */
  nodeOutputs: Record<string, Record<string, unknown> | undefined>;
}

/** What a panel is made with. */
export interface Host {
  app: PanelApp;
  api: Api;
  server: import("../browser/server.mjs").Server;
}

/** A picture file as ComfyUI names it. */
export interface PictureFile {
  filename: string;
  subfolder?: string;
  type?: string;
}
