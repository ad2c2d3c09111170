// Starts Python once at build time, imports what needs no browser, and stores its memory. So Python
// starts in a browser in a fourth of the time. Pyodide's option for this is not public yet, which is
// why package.json pins its version. Runs after build.mjs and wheels.py.

import { readFile, readdir, writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import { loadPyodide } from "pyodide";

// Modules of other packages that webllm imports.
const MODULES =
  "array, asyncio, concurrent.futures, contextlib, ctypes, dataclasses, datetime, decimal, " +
  "difflib, encodings.unicode_escape, enum, hashlib, heapq, inspect, jinja2.ext, jinja2.sandbox, " +
  "json, logging, math, pathlib, re, shutil, site, struct, typing, unicodedata, urllib.parse, " +
  "uuid, zipfile";
const EXTENSION = /_wasm32\.whl$/; // those others are Python only, and stay in an archive
const ARCHIVE = "/packages.zip"; // as in src/boot.ts

const dist = new URL("dist/", import.meta.url);
const wheels = (await readdir(new URL("wheels/", dist))).filter((name) => name.endsWith(".whl"));
const python = await loadPyodide({ _makeSnapshot: true });
const initialBytes = python._module.HEAP8.length;
python.runPython(await readFile(new URL("python_packages.py", import.meta.url), "utf8"));

await unpack(
  wheels.filter((name) => !EXTENSION.test(name)),
  "/packages",
);
python.runPython(`
shutil.rmtree("/packages/webllm/cli")
for native in Path("/packages/webllm/workers").glob("daemon*.py"):
    native.unlink()
`);
python.runPython(`pack("/packages", "${ARCHIVE}", unpacked=False); sys.path.append("${ARCHIVE}")`);
await writeFile(new URL("packages.zip", dist), python.FS.readFile(ARCHIVE));
const count = python.runPython(`import ${MODULES}; import_early("webllm")`);
console.log(`${count} modules of webllm are in the snapshot`);
const usedBytes = python._module.HEAP8.length;
if (usedBytes > initialBytes) {
  const message = `Pyodide starts with ${initialBytes} bytes only; import less of native hosts`;
  throw new Error(`a snapshot of ${usedBytes} bytes cannot be loaded: ${message}`);
}
const memory = gzipSync(python.makeMemorySnapshot(), { level: 9 });
await writeFile(new URL("python.snapshot", dist), memory);

await unpack(
  wheels.filter((name) => EXTENSION.test(name)),
  "/extensions",
);
python.runPython(`pack("/extensions", "/extensions.zip", unpacked=True)`);
await writeFile(new URL("extensions.zip", dist), python.FS.readFile("/extensions.zip"));
process.exit(0); // Pyodide keeps Node running

async function unpack(names, extractDir) {
  python.FS.mkdir(extractDir);
  for (const name of names) {
    const wheel = await readFile(new URL(`wheels/${name}`, dist));
    python.unpackArchive(new Uint8Array(wheel), "zip", { extractDir });
  }
}
