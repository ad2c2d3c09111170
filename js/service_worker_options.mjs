// esbuild's options for the script of a Service Worker, which may not import anything later: it is one
// file with all of Pyodide's JavaScript, also for bundlers.

export const SERVICE_WORKER = {
  absWorkingDir: import.meta.dirname,
  bundle: true,
  target: "es2022",
  minifyWhitespace: true,
  supported: { "dynamic-import": false },
  // Pyodide refuses to start where it could import scripts, which it does not need to here.
  define: { "import.meta.url": "self.location.href", "globalThis.importScripts": "undefined" },
  external: ["node:*", "ws"], // Pyodide's, under Node
};
