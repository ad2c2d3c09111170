// Boots Python with webllm in it, in a page or a worker, from one folder of static files:
//
//   pyodide/          the runtime, as in the npm package
//   python.snapshot   its memory just after the start, see snapshot.mjs
//   wheels/*.whl      webllm and what it needs; wheels/index.json lists them

import createPyodideModule from "pyodide/pyodide.asm.mjs";
import { loadPyodide, type PyodideAPI } from "pyodide";
import * as gpu from "./gpu";

/** Python, ready for `import webllm`. `root` is the folder, by default the one of this script. */
export async function boot(root: URL = new URL("./", import.meta.url)): Promise<PyodideAPI> {
  const wheels = fetchWheels(new URL("wheels/", root)); // while the runtime starts
  const python = await loadPyodide({
    indexURL: new URL("pyodide/", root).href,
    createPyodideModule, // a service worker may not import it later
    _loadSnapshot: fetchSnapshot(new URL("python.snapshot", root)),
  });
  python.runPython("import random; random.seed()"); // not as in everybody's snapshot
  python.registerJsModule("webllm_gpu", gpu);
  const extractDir: string = python.runPython("import site; site.getsitepackages()[0]");
  for (const wheel of await wheels) python.unpackArchive(wheel, "wheel", { extractDir });
  return python;
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
