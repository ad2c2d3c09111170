// The files that start Python, beside our scripts:
//
//   pyodide/          the runtime, as in the npm package
//   python.snapshot   its memory just after the start, see snapshot.mjs
//   packages.zip      webllm and what it needs, with bytecode; Python imports from it as it is
//   extensions.zip    its compiled modules, which have to be unpacked
//   models.json       the models that webllm knows by name here
//   wheels/*.whl      the packages, for pages that have a Pyodide of their own

import { fetchCatalogue } from "./catalogue";
import type { AppConfig } from "./client/config";

export interface RuntimeFiles {
  root: URL;
  snapshot: Promise<ArrayBuffer>;
  packages: Promise<ArrayBuffer>;
  extensions: Promise<ArrayBuffer>;
  catalogue: Promise<AppConfig | null>;
}

/** The folder of this script. */
export function thisFolder(): URL {
  return new URL("./", import.meta.url);
}

/** Begins to fetch what is in a folder. */
export function fetchRuntime(root = thisFolder()): RuntimeFiles {
  const files = {
    snapshot: fetchFile(new URL("python.snapshot", root)).then(unzipped),
    packages: fetchFile(new URL("packages.zip", root)).then(whole),
    extensions: fetchFile(new URL("extensions.zip", root)).then(whole),
    catalogue: fetchCatalogue(root),
  };
  for (const file of Object.values(files)) file.catch(() => {}); // reported where it is awaited
  return { root, ...files };
}

function whole(response: Response): Promise<ArrayBuffer> {
  return response.arrayBuffer();
}

function unzipped({ body }: Response): Promise<ArrayBuffer> {
  return new Response(body?.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

async function fetchFile(url: URL): Promise<Response> {
  const response = await fetch(url);
  if (response.ok) return response;
  throw new Error(
    `${url} cannot be fetched: ${response.status}; serve webllm's files in that folder, or name ` +
      "theirs as root, at the top of the worker's script",
  );
}
