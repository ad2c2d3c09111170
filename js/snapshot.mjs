// Starts Python once, at build time, and keeps its memory with what webllm imports of others: so
// it starts in a browser in a fourth of the time. Pyodide's option for that is not public yet; the
// version in package.json is exact. After build.mjs and wheels.py.

import { readFile, readdir, writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import { loadPyodide } from "pyodide";

// Pure Python only: what compiled modules do to memory cannot be kept.
const PACKAGES = /^(jinja2|markupsafe)-/;
const MODULES =
  "array, asyncio, concurrent.futures, contextlib, ctypes, dataclasses, datetime, difflib, enum, " +
  "hashlib, heapq, inspect, jinja2.ext, jinja2.sandbox, json, logging, math, pathlib, re, shutil, " +
  "struct, typing, unicodedata, urllib.parse, uuid, zipfile";

const wheels = new URL("dist/wheels/", import.meta.url);
const python = await loadPyodide({ _makeSnapshot: true });
const extractDir = python.runPython("import site; site.getsitepackages()[0]");
for (const name of await readdir(wheels)) {
  if (!PACKAGES.test(name)) continue;
  const wheel = await readFile(new URL(name, wheels));
  python.unpackArchive(new Uint8Array(wheel), "wheel", { extractDir });
}
python.runPython(`import ${MODULES}`);
const memory = gzipSync(python.makeMemorySnapshot(), { level: 9 });
await writeFile(new URL("dist/python.snapshot", import.meta.url), memory);
process.exit(0); // Pyodide keeps Node running
