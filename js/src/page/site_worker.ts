// Registers the site's Service Worker (sw.ts), by which the page works offline and has threads on any
// host. Without it (plain http, private windows, a site that has none) the page works as it is.
//
// A page that has just been opened reloads itself for two reasons: its first worker can isolate it
// from other origins, which matters only to the CPU kernels, or a new version of the site was
// waiting. It does not if the user has touched it, or if the last load was a reload of its own.

const MARK = "webllm-reloaded"; // in sessionStorage, from a page's own reload until it has loaded
const PATIENCE_MS = 10_000; // with a worker that is starting

/**
 * Resolves, soon, to whether the page reloads itself; until then it should not begin to load a model.
 * Never rejects. `usesCpu`: whether models will run on the CPU.
 */
export async function registerSiteWorker(usesCpu: () => Promise<boolean>): Promise<boolean> {
  const script = scriptUrl();
  if (!script || !navigator.serviceWorker) return false;
  const { serviceWorker } = navigator;
  try {
    const mayReload = reloadOnce();
    const claimed = controllerChange();
    const isFirst = !(await registered())?.active;
    await serviceWorker.register(script, { updateViaCache: "none" });
    const isImproved =
      (await takeUpdate()) || (isFirst && (await lacksThreads(usesCpu)) && (await claimed));
    if (isImproved && mayReload()) return true;
    void serviceWorker.ready.then(askToPrecache);
  } catch (error) {
    console.info(`this page does not work offline: ${String(error)}`);
  }
  return false;
}

/**
 * Lets a version of the site that is waiting take over, and returns whether it has. Call it when
 * nothing runs in the worker. It refuses if other pages of the site are open.
 */
export async function takeUpdate(): Promise<boolean> {
  const waiting = (await registered())?.waiting;
  if (!waiting) return false;
  const { port1, port2 } = new MessageChannel();
  const hasTakenOver = controllerChange();
  const isWilling = new Promise<boolean>(
    (resolve) => (port1.onmessage = ({ data }) => resolve(data)),
  );
  waiting.postMessage({ kind: "skipWaiting" }, [port2]);
  const answer = await Promise.race([isWilling, hasTakenOver]);
  port1.close();
  return answer && hasTakenOver;
}

/** The address of the site's worker; null if it has none. */
function scriptUrl(): URL | null {
  const meta = document.querySelector<HTMLMetaElement>("meta[name=service-worker]");
  return meta && new URL(meta.content, location.href);
}

/** This site's registration, and not that of a site around it. */
async function registered(): Promise<ServiceWorkerRegistration | undefined> {
  const script = scriptUrl();
  const registration = script && (await navigator.serviceWorker?.getRegistration(script));
  return registration && registration.scope === new URL("./", script).href
    ? registration
    : undefined;
}

async function lacksThreads(usesCpu: () => Promise<boolean>): Promise<boolean> {
  return globalThis.crossOriginIsolated === false && window === window.top && usesCpu();
}

/** Whether another worker takes control of this page, soon. */
function controllerChange(): Promise<boolean> {
  return new Promise((resolve) => {
    navigator.serviceWorker.addEventListener("controllerchange", () => resolve(true), {
      once: true,
    });
    setTimeout(() => resolve(false), PATIENCE_MS);
  });
}

/** Returns a function that reloads the page if it may, and says whether it does. */
function reloadOnce(): () => boolean {
  const hasReloaded = sessionStorage.getItem(MARK) !== null;
  sessionStorage.removeItem(MARK);
  let isTouched = false;
  for (const kind of ["keydown", "pointerdown", "click", "input"]) {
    addEventListener(kind, () => (isTouched = true), { once: true, capture: true });
  }
  return () => {
    if (hasReloaded || isTouched) return false;
    sessionStorage.setItem(MARK, "");
    location.reload();
    return true;
  };
}

function askToPrecache({ active }: ServiceWorkerRegistration): void {
  active?.postMessage({ kind: "precache" });
}
