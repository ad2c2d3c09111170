// One thread of the CPU kernels: a Web Worker that instantiates the module on the shared memory and
// works for the thread pool until the engine is closed. browser_threads.py starts it.

self.onmessage = ({ data: { module, memory, stack, pool, id } }) => {
  const host = { now: () => performance.now() };
  const { exports } = new WebAssembly.Instance(module, { env: { memory }, host });
  exports.__stack_pointer.value = stack;
  self.postMessage("ready");
  exports.pool_work(pool, id); // returns when the pool is destroyed; sleeps when idle
};
