// In the place of homes.js: homes that a test answers for. `globalThis.homes` lists them.

globalThis.homes = [];

export class Home extends EventTarget {
  host = "";
  missedHeartbeat = 0;
  posted = [];
  isClosed = false;

  constructor(options) {
    super();
    if (options.host === "nowhere")
      throw Object.assign(new Error("unknown"), { name: "ConfigError" });
    this.options = options;
    this.ready = new Promise((resolve, reject) => {
      this.connect = (host) => resolve(void (this.host = host));
      this.refuse = (name, message) => {
        const error = Object.assign(new Error(message), { name });
        reject(error);
        this.lose(error);
      };
    });
    globalThis.homes.push(this);
  }

  postMessage(message) {
    const { kind, uuid } = structuredClone(message);
    this.posted.push(message);
    if (["hello", "reload", "completionNonStreaming"].includes(kind)) {
      const content = kind === "hello" ? { protocol: 3, lock: "a lock" } : this.answer;
      void this.ready.then(
        () => content === undefined || this.say({ kind: "return", uuid, content }),
        () => {},
      );
    }
  }

  say(data) {
    this.dispatchEvent(new MessageEvent("message", { data }));
  }

  lose(reason) {
    this.dispatchEvent(new CustomEvent("close", { detail: reason }));
  }

  close() {
    this.isClosed = true;
  }

  answer = null;
}
