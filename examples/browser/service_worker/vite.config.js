// Vite bundles Web Workers by itself, but copies the script that `register` names.

const serviceWorker = {
  name: "service-worker",
  apply: "build",
  enforce: "pre",
  buildStart() {
    this.emitFile({ type: "chunk", id: "sw.ts", fileName: "sw.js" }); // its folder is its scope
  },
  transform: (code) =>
    code.replace('new URL("sw.ts", import.meta.url)', 'import.meta.env.BASE_URL + "sw.js"'),
};

export default { plugins: [serviceWorker], build: { target: "es2022" } };
