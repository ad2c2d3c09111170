// Bundles the benchmark page into dist/, and the other engines that it measures into peers/, which
// is not part of the site.

import { cp, mkdir } from "node:fs/promises";
import { build } from "esbuild";

const COPIES = {
  "src/benchmark/index.html": "dist/benchmark.html",
  "node_modules/@wllama/wllama/esm/wasm/wllama.wasm": "peers/wllama.wasm",
};
const OPTIONS = {
  absWorkingDir: import.meta.dirname,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
};

await build({
  ...OPTIONS,
  entryPoints: [
    { in: "src/benchmark/benchmark.ts", out: "benchmark" },
    { in: "src/benchmark/benchmark.css", out: "benchmark" },
  ],
  outdir: "dist",
  loader: { ".woff2": "file" },
  assetNames: "[name]",
});
await build({
  ...OPTIONS,
  entryPoints: ["wllama", "web_llm", "web_llm_worker"].map(
    (name) => `src/benchmark/peers/${name}.ts`,
  ),
  outdir: "peers",
  splitting: true,
});
await mkdir(new URL("peers/", import.meta.url), { recursive: true });
for (const [from, to] of Object.entries(COPIES)) {
  await cp(new URL(from, import.meta.url), new URL(to, import.meta.url));
}
