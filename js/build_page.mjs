// Bundles the chat page and the client for other pages into dist/.

import { cp } from "node:fs/promises";
import { build } from "esbuild";

const COPIES = {
  "src/page/index.html": "index.html",
  "src/page/icon.svg": "icon.svg",
  "src/client/prebuilt.json": "models.json",
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
