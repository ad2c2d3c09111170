// Bundles what only a Chrome extension has into dist/.

import { cp } from "node:fs/promises";
import { build } from "esbuild";

const COPIES = ["offscreen.html", "consent.html"];

await build({
  entryPoints: {
    background: "src/extension/background.ts",
    consent: "src/extension/consent.ts",
    offscreen: "src/extension/offscreen.ts",
  },
  absWorkingDir: import.meta.dirname,
  outdir: "dist",
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
});
for (const name of COPIES) {
  await cp(
    new URL(`src/extension/${name}`, import.meta.url),
    new URL(`dist/${name}`, import.meta.url),
  );
}
