// Bundles the chat page and the client for other pages into dist/.

import { cp, readFile, writeFile } from "node:fs/promises";
import { build } from "esbuild";

const COPIES = {
  "src/page/icon.svg": "icon.svg",
  "src/page/models.json": "models.json",
  "src/page/webllm_models.json": "webllm_models.json", // fetched once it is looked at
  "../LICENSE": "license.txt",
  "../THIRD_PARTY_NOTICES.md": "third-party-notices.txt",
};

await build({
  entryPoints: [
    { in: "src/page/page.ts", out: "page" },
    { in: "src/page/styles/page.css", out: "page" },
  ],
  absWorkingDir: import.meta.dirname,
  outdir: "dist",
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  loader: { ".woff2": "file" },
  assetNames: "[name]",
});
// Not minified: bundlers read its comments, and minify it themselves.
await build({
  entryPoints: { client: "src/client/index.ts" },
  absWorkingDir: import.meta.dirname,
  outdir: "dist",
  bundle: true,
  format: "esm",
  target: "es2022",
});
for (const [from, to] of Object.entries(COPIES)) {
  await cp(new URL(from, import.meta.url), new URL(`dist/${to}`, import.meta.url));
}

// The page's icon is inside of it: browsers ask for icons late, in the midst of what the page does with
// its Service Worker (see src/page/site_worker.ts).
const icon = (await read("icon.svg")).replace(/\s+/g, " ");
const page = await read("index.html");
const link = `href="data:image/svg+xml,${encodeURIComponent(icon)}"`;
await writeFile(
  new URL("dist/index.html", import.meta.url),
  page.replace('href="icon.svg"', () => link),
);

function read(name) {
  return readFile(new URL(`src/page/${name}`, import.meta.url), "utf8");
}
