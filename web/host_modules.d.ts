/** What ComfyUI serves beside every pack's own files. */

declare module "*/scripts/app.js" {
  export const app: import("./host.js").App;
}

declare module "*/scripts/api.js" {
  export const api: import("./host.js").Api;
}
