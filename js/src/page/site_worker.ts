// Registers the site's Service Worker (sw.ts), by which the page works offline and has threads on any
// host. Without it (plain http, private windows, a site that has none) the page works as it is.
//
// A page that has just been opened reloads itself for two reasons: a new version of the site was
// waiting, or its first worker can isolate it from other origins, which matters only to the CPU
// kernels. It does not if the user has touched it, or if the last load was a reload of its own.

const MARK = "webllm-reloaded"; // in sessionStorage, from a page's own reload until it has loaded
const PATIENCE_MS = 10_000; // with a worker that is starting
const TAKEOVER_MS = 2000; // after which a takeover that was granted waits for another load

export class SiteWorker {
  private readonly script = scriptUrl();
  private readonly hasReloaded = takeMark();
  private isTouched = false;

  constructor() {
    for (const kind of ["keydown", "pointerdown", "click", "input"]) {
      addEventListener(kind, () => (this.isTouched = true), { once: true, capture: true });
    }
  }

  /**
   * Lets a version of the site that is waiting take over, and returns whether the page reloads itself
   * with it. The version refuses if other pages of the site are open. Meanwhile the page asks its worker
   * for nothing: Chromium 156 puts the takeover off if a request comes in the midst of it, until the
   * next load. Never rejects.
   */
  async takesUpdate(): Promise<boolean> {
    const waiting = (await this.registered())?.waiting;
    if (!waiting || !this.mayReload) return false;
    await loaded();
    const hasTakenOver = controllerChange(TAKEOVER_MS);
    if (!(await asked(waiting, "skipWaiting"))) return false;
    await hasTakenOver;
    return this.reloads();
  }

  /**
   * Registers the worker. Resolves, soon, to whether the page reloads itself; until then it should not
   * begin to load a model. Never rejects. `usesCpu`: whether models will run on the CPU.
   */
  async register(usesCpu: () => Promise<boolean>): Promise<boolean> {
    if (!this.script || !navigator.serviceWorker) return false;
    const { serviceWorker } = navigator;
    try {
      const claimed = controllerChange(PATIENCE_MS);
      const isFirst = !(await this.registered())?.active;
      await serviceWorker.register(this.script, { updateViaCache: "none" });
      if (isFirst && (await lacksThreads(usesCpu)) && (await claimed) && this.reloads())
        return true;
      void serviceWorker.ready.then(askToPrecache);
    } catch (error) {
      console.info(`this page does not work offline: ${String(error)}`);
    }
    return false;
  }

  private get mayReload(): boolean {
    return !this.hasReloaded && !this.isTouched;
  }

  /** Reloads the page if it may, and returns whether it does. */
  private reloads(): boolean {
    if (!this.mayReload) return false;
    sessionStorage.setItem(MARK, "");
    location.reload();
    return true;
  }

  /** This site's registration, and not that of a site around it; none if the page may not know. */
  private async registered(): Promise<ServiceWorkerRegistration | undefined> {
    const { script } = this;
    const registration =
      script && (await navigator.serviceWorker?.getRegistration(script).catch(() => {}));
    return registration && registration.scope === new URL("./", script).href
      ? registration
      : undefined;
  }
}

/** The address of the site's worker; null if it has none. */
function scriptUrl(): URL | null {
  const meta = document.querySelector<HTMLMetaElement>("meta[name=service-worker]");
  return meta && new URL(meta.content, location.href);
}

/** Whether this load is a reload of the page's own; true, too, without storage to know it by. */
function takeMark(): boolean {
  try {
    const isMarked = sessionStorage.getItem(MARK) !== null;
    sessionStorage.removeItem(MARK);
    return isMarked;
  } catch {
    return true;
  }
}

/** Resolves when the files that the document names have been fetched. */
function loaded(): Promise<unknown> {
  if (document.readyState === "complete") return Promise.resolve();
  return new Promise((resolve) => addEventListener("load", resolve, { once: true }));
}

/** Resolves to a worker's answer; to false if none comes. */
function asked(worker: ServiceWorker, kind: string): Promise<boolean> {
  const { port1, port2 } = new MessageChannel();
  worker.postMessage({ kind }, [port2]);
  return new Promise<boolean>((resolve) => {
    port1.onmessage = ({ data }) => resolve(data);
    setTimeout(() => resolve(false), PATIENCE_MS);
  }).finally(() => port1.close());
}

async function lacksThreads(usesCpu: () => Promise<boolean>): Promise<boolean> {
  return globalThis.crossOriginIsolated === false && window === window.top && usesCpu();
}

/** Whether another worker takes control of this page, soon. */
function controllerChange(patienceMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    navigator.serviceWorker.addEventListener("controllerchange", () => resolve(true), {
      once: true,
    });
    setTimeout(() => resolve(false), patienceMs);
  });
}

function askToPrecache({ active }: ServiceWorkerRegistration): void {
  active?.postMessage({ kind: "precache" });
}
