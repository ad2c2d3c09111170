// The address of webllm's static files: worker.js, host.js and the files that start Python.

/** A folder's address, relative to the page's or the worker's own. */
export type Root = string | URL;

const THIS_SCRIPT = import.meta.url;

/** Advice for a file that is not found. */
export function notServed(file: URL, withRoot: string): string {
  return (
    `is webllm's folder js/dist served as ${new URL("./", file).href}? ` +
    `If it is served elsewhere, say where by root: ${withRoot}`
  );
}

/** By default the folder of this script: that of the built client, or of a bundle with it. */
export function fileAt(name: string, root: Root = new URL("./", THIS_SCRIPT)): URL {
  const folder = new URL(root, location.href).href;
  return new URL(name, folder.endsWith("/") ? folder : `${folder}/`);
}
