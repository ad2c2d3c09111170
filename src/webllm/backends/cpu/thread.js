// A thread of the CPU kernels: a Web Worker that serves the pool in a memory it shares, until the
// engine is closed. See browser_threads.py.

self.onmessage = ({ data: { module, memory, stack, pool, id } }) => {
  const host = { now: () => performance.now() };
  const { exports } = new WebAssembly.Instance(module, { env: { memory }, host });
  exports.__stack_pointer.value = stack;
  self.postMessage("ready");
  exports.pool_help(pool, id); // sleeps where there is nothing to do
};
