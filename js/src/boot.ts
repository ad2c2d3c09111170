// Boots Python with webllm in it, in a page or a worker, from one folder of static files:
//
//   pyodide/          the runtime, as in the npm package
//   python.snapshot   its memory just after the start, see snapshot.mjs
//   wheels/*.whl      webllm and what it needs; wheels/index.json lists them
//   models.json       the models that webllm knows by name here

import createPyodideModule from "pyodide/pyodide.asm.mjs";
import { loadPyodide, type PyodideAPI } from "pyodide";
import { fetchCatalogue } from "./catalogue";
import type { AppConfig } from "./client/messages";
import * as gpu from "./gpu";

const CATALOGUE = "/webllm-models.json"; // Python's own file system

export interface BootOptions {
  root?: URL; // the folder, by default that of this script
  catalogue?: Promise<AppConfig | null>; // by default what models.json has
  onProgress?: (part: number) => void; // 0 to 1
}

/** Python, ready for `import webllm`. */
export async function boot(options: BootOptions = {}): Promise<PyodideAPI> {
  const { root = new URL("./", import.meta.url), onProgress = () => {} } = options;
  const { catalogue = fetchCatalogue(root) } = options;
  const wheels = fetchWheels(new URL("wheels/", root)); // while the runtime starts
  const snapshot = fetchSnapshot(new URL("python.snapshot", root));
  void snapshot.then(() => onProgress(0.4));
  const python = await loadPyodide({
    indexURL: new URL("pyodide/", root).href,
    createPyodideModule, // a service worker may not import it later
    _loadSnapshot: snapshot,
  });
  onProgress(0.8);
  python.runPython("import random; random.seed()"); // not as in everybody's snapshot
  python.registerJsModule("webllm_gpu", gpu);
  const extractDir: string = python.runPython("import site; site.getsitepackages()[0]");
  for (const wheel of await wheels) python.unpackArchive(wheel, "wheel", { extractDir });
  setCatalogue(python, await catalogue);
  onProgress(1);
  return python;
}

function setCatalogue(python: PyodideAPI, catalogue: AppConfig | null): void {
  if (catalogue === null) return;
  python.FS.writeFile(CATALOGUE, JSON.stringify(catalogue));
  python.runPython(`import os; os.environ["WEBLLM_MODELS"] = "${CATALOGUE}"`);
}

async function fetchWheels(folder: URL): Promise<ArrayBuffer[]> {
  const names: string[] = await (await fetchFile(new URL("index.json", folder))).json();
  const get = async (name: string) => (await fetchFile(new URL(name, folder))).arrayBuffer();
  return Promise.all(names.map(get));
}

async function fetchSnapshot(url: URL): Promise<ArrayBuffer> {
  const { body } = await fetchFile(url);
  return new Response(body?.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

async function fetchFile(url: URL): Promise<Response> {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url} cannot be fetched: ${response.status}`);
  return response;
}
