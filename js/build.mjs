// Bundles src/ into dist/, beside the files of Pyodide's runtime. The wheels come from wheels.py.

import { cp, mkdir, readdir, rm } from "node:fs/promises";
import { build } from "esbuild";
import { SERVICE_WORKER } from "./service_worker_options.mjs";

const RUNTIME = [
  "pyodide.mjs",
  "pyodide.asm.mjs",
  "pyodide.asm.wasm",
  "python_stdlib.zip",
  "pyodide-lock.json",
];

const dist = new URL("dist/", import.meta.url);
const runtime = new URL("pyodide/", dist);
for (const folder of [runtime, new URL("types/", dist)]) {
  await rm(folder, { recursive: true, force: true });
}
await mkdir(runtime, { recursive: true });
for (const name of await readdir(dist)) {
  if (name.startsWith("chunk-")) await rm(new URL(name, dist)); // of an earlier build
}
for (const name of RUNTIME) {
  await cp(new URL(`node_modules/pyodide/${name}`, import.meta.url), new URL(name, runtime));
}
await build({
  entryPoints: {
    boot: "src/boot.ts",
    worker: "src/worker.ts",
    host: "src/worker_host.ts",
    tab: "src/tab.ts",
    shared_worker: "src/shared_worker.ts",
    offscreen_worker: "src/offscreen_worker.ts",
    benchmark_worker: "src/benchmark/worker.ts",
  },
  absWorkingDir: import.meta.dirname,
  outdir: "dist",
  bundle: true,
  splitting: true,
  format: "esm",
  target: "es2022",
  alias: {
    pyodide: "./pyodide/pyodide.mjs",
    "pyodide/pyodide.asm.mjs": "./pyodide/pyodide.asm.mjs",
  },
  external: ["./pyodide/*"],
});
await build({
  ...SERVICE_WORKER,
  entryPoints: {
    service_worker: "src/service_worker.ts",
    extension_service_worker: "src/extension_worker.ts",
  },
  outdir: "dist",
  format: "esm",
});
await cp(
  new URL("../src/webllm/backends/cpu/thread.js", import.meta.url),
  new URL("thread.js", dist),
);
