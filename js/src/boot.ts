// Boots Python with webllm in it, in a page or a worker.

import createPyodideModule from "pyodide/pyodide.asm.mjs";
import { loadPyodide, type PyodideAPI } from "pyodide";
import * as stores from "../../src/webllm/artifacts/browser/stores.js";
import * as gpu from "../../src/webllm/backends/webgpu/device/browser.js";
import * as homes from "../../src/webllm/workers/homes.js";
import type { AppConfig } from "./client/config";
import { fetchRuntime, type RuntimeFiles } from "./runtime_files";

const ARCHIVE = "/packages.zip"; // where the snapshot has imported from
const EXTENSIONS = "/extensions.zip";
// As unpackArchive does, which would make Python read the long list of packages.zip anew.
const UNPACK = `
import site, sys, zipfile

with zipfile.ZipFile("${EXTENSIONS}") as file:
    file.extractall(site.getsitepackages()[0])
sys.path_importer_cache.pop(site.getsitepackages()[0], None)
`;
const CATALOGUE = "/webllm-models.json"; // in Python's own file system

export interface BootOptions {
  root?: URL; // the folder of the files, by default that of this script
  files?: RuntimeFiles; // if somebody already fetches them
  onProgress?: (part: number) => void; // 0 to 1
}

/** Python, ready for `import webllm`. */
export async function boot(options: BootOptions = {}): Promise<PyodideAPI> {
  const { files = fetchRuntime(options.root), onProgress = () => {} } = options;
  const python = await loadPyodide({
    indexURL: new URL("pyodide/", files.root).href,
    createPyodideModule, // a service worker may not import it later
    _loadSnapshot: files.snapshot,
  });
  structuredClone(null, { transfer: [await files.snapshot] }); // Pyodide would retain 30 MB
  onProgress(0.8);
  python.runPython("import random; random.seed()"); // the snapshot's seed is everybody's
  python.registerJsModule("webllm_stores", stores);
  python.registerJsModule("webllm_gpu", gpu);
  python.registerJsModule("webllm_homes", homes);
  const threads = { url: new URL("thread.js", files.root).href };
  python.registerJsModule("webllm_threads", threads);
  python.FS.writeFile(ARCHIVE, new Uint8Array(await files.packages));
  python.FS.writeFile(EXTENSIONS, new Uint8Array(await files.extensions));
  python.runPython(UNPACK);
  setCatalogue(python, await files.catalogue);
  onProgress(1);
  return python;
}

function setCatalogue(python: PyodideAPI, catalogue: AppConfig | null): void {
  if (catalogue === null) return;
  python.FS.writeFile(CATALOGUE, JSON.stringify(catalogue));
  python.runPython(`import os; os.environ["WEBLLM_MODELS"] = "${CATALOGUE}"`);
}
