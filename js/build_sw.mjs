// Bundles the site's Service Worker into dist/sw.js, whose first line lists the site's other files
// with their hashes. Runs last. `webllm bundle` and `webllm web` write that line anew, see
// cli/site_worker.py.

import { createHash } from "node:crypto";
import { readFile, readdir, writeFile } from "node:fs/promises";
import { join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { SERVICE_WORKER } from "./service_worker_options.mjs";

// What pages need only online, changes without a build, or is no part of the site's pages.
const NOT_OFFLINE =
  /^\.|^(models\.json|sw\.js|(extension_)?service_worker\.js|(offscreen|background|consent|popup|icon-|benchmark).*)$|^(types|wheels|_locales)\/|\.map$/;

const dist = new URL("dist/", import.meta.url);
const built = await build({
  ...SERVICE_WORKER,
  entryPoints: ["src/sw.ts"],
  format: "iife", // some browsers have no module Service Workers
  write: false,
});
const entries = await readdir(fileURLToPath(dist), { recursive: true, withFileTypes: true });
const names = entries
  .filter((entry) => entry.isFile())
  .map((entry) => relative(fileURLToPath(dist), join(entry.parentPath, entry.name)))
  .map((path) => path.split(sep).join("/"))
  .filter((name) => !NOT_OFFLINE.test(name))
  .sort();
const hashes = {};
for (const name of names) {
  hashes[name] = createHash("sha256")
    .update(await readFile(new URL(name, dist)))
    .digest("hex");
}
const list = `self.webllmFiles = ${JSON.stringify(hashes)};\n`;
await writeFile(new URL("sw.js", dist), list + built.outputFiles[0].text);
