// Web Locks in the place of the browser's: exclusive ones, which may be stolen.

export class FakeLocks {
  #queues = new Map(); // by name: the holder first

  request(name, given, given2) {
    const [{ signal, steal = false }, act] = given2 ? [given, given2] : [{}, given];
    if (signal?.aborted) return Promise.reject(signal.reason);
    const queue = this.#queues.get(name) ?? [];
    this.#queues.set(name, queue);
    return new Promise((resolve, reject) => {
      const entry = { reject };
      entry.grant = () => {
        entry.isHeld = true;
        void Promise.resolve(act({ name }))
          .then(resolve, reject)
          .then(() => this.#leave(queue, entry));
      };
      signal?.addEventListener("abort", () => {
        if (entry.isHeld) return;
        this.#leave(queue, entry);
        reject(signal.reason);
      });
      if (steal) {
        queue.shift()?.reject(new DOMException("stolen", "AbortError"));
        queue.unshift(entry);
      } else queue.push(entry);
      queueMicrotask(() => this.#grant(queue));
    });
  }

  #grant([first]) {
    if (first && !first.isHeld) first.grant();
  }

  #leave(queue, entry) {
    const index = queue.indexOf(entry);
    if (index >= 0) queue.splice(index, 1);
    this.#grant(queue);
  }
}
