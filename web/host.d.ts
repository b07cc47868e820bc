/** The parts of ComfyUI's frontend that are used here, and no more. */

export interface Api extends EventTarget {
  /** `route` begins with a slash; the prefix that this server has is put before it. */
  fetchApi(route: string, options?: RequestInit): Promise<Response>;
  apiURL(route: string): string;
}

export interface Widget {
  name: string;
  type: string;
  value: unknown;
  options: { values?: unknown; serialize?: boolean; [name: string]: unknown };
  callback?: (value: unknown, ...more: unknown[]) => void;
  element?: HTMLElement;
}

export interface Slot {
  name: string;
  type: string;
  /** Of an input. */
  link?: number | null;
  /** Of an output. */
  links?: number[] | null;
  widget?: { name: string };
}

export interface Link {
  id: number;
  type: string;
  origin_id: number | string;
  origin_slot: number;
  target_id: number | string;
  target_slot: number;
}

export interface GraphNode {
  id: number | string;
  type: string;
  /** The server's name for it; there from the start, while `type` is set after a node is made. */
  comfyClass?: string;
  title: string;
  /** 0 runs, 2 is muted, 4 is bypassed. */
  mode: number;
  pos: [number, number];
  size: [number, number];
  flags: { collapsed?: boolean };
  graph: Graph | null;
  widgets?: Widget[];
  inputs: Slot[];
  outputs: Slot[];
  connect(output: number, node: GraphNode, input: number): unknown;
  computeSize(): [number, number];
  setSize(size: [number, number]): void;
  setDirtyCanvas(foreground: boolean, background?: boolean): void;
  addDOMWidget(name: string, type: string, element: HTMLElement, options?: DOMWidgetOptions): Widget;
}

export interface DOMWidgetOptions {
  getValue?: () => unknown;
  getMinHeight?: () => number;
  getMaxHeight?: () => number;
  serialize?: boolean;
  margin?: number;
}

export interface Graph {
  nodes: GraphNode[];
  links: Map<number, Link>;
  getNodeById(id: number | string): GraphNode | null;
  add(node: GraphNode): GraphNode;
  remove(node: GraphNode): void;
  setDirtyCanvas(foreground: boolean, background?: boolean): void;
}

export interface Canvas {
  canvas: HTMLCanvasElement;
  /** What is shown: the workflow, or a subgraph of it. */
  graph: Graph | null;
  ds: { scale: number; offset: [number, number] };
  selected_nodes: Record<string, GraphNode>;
  selectNodes(nodes: GraphNode[]): void;
  emitBeforeChange(): void;
  emitAfterChange(): void;
  setDirty(foreground: boolean, background?: boolean): void;
}

export interface ToastMessage {
  severity: "success" | "info" | "warn" | "error";
  summary: string;
  detail?: string;
  life?: number;
}

export interface SidebarTab {
  id: string;
  icon: string;
  title: string;
  tooltip?: string;
  type: "custom";
  render(container: HTMLElement): void | Promise<void>;
  destroy?(): void;
}

export interface ExtensionManager {
  registerSidebarTab(tab: SidebarTab): void;
  toast: { add(message: ToastMessage): void; remove?(message: ToastMessage): void };
  workflow?: { activeWorkflow?: { changeTracker?: ChangeTracker } | null };
}

/** What the user can take back; a change is from `beforeChange` to `afterChange`. */
export interface ChangeTracker {
  beforeChange(): void;
  afterChange(): void;
}

export interface Extension {
  name: string;
  setup?(app: App): void | Promise<void>;
  nodeCreated?(node: GraphNode, app: App): void | Promise<void>;
}

export interface App {
  graph: Graph;
  rootGraph?: Graph;
  canvas: Canvas;
  extensionManager: ExtensionManager;
  registerExtension(extension: Extension): void;
}

declare global {
  /** The graph library; nodes are made by type. */
  const LiteGraph: { createNode(type: string): GraphNode | null };
}
