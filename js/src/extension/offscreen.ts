// The extension's offscreen document. Its worker has the engine. It closes, which gives all memory
// back, once nobody has asked anything for `?idle=` milliseconds.

import { OFFSCREEN_CHANNEL, offscreenStats } from "../extension_homes";

const LOOK_MS = 5_000;
// What is no use of the engine.
const QUIET = new Set(["bye", "here", "idle", "getEngineStats", "hello", "keepAlive", "stay"]);

let idleMs = Number(new URLSearchParams(location.search).get("idle")) || Infinity;
const channel = new BroadcastChannel(OFFSCREEN_CHANNEL);
let usedMs = performance.now();
let hasBegun = false; // the worker
channel.onmessage = ({ data }) => {
  if (data?.kind === "here") hasBegun = true;
  if (data?.kind === "idle") idleMs = data.idleMs;
  if (data?.to !== undefined || typeof data?.kind !== "string" || QUIET.has(data.kind)) return;
  usedMs = performance.now();
};
const worker = new Worker(new URL("offscreen_worker.js", import.meta.url), {
  type: "module",
  name: OFFSCREEN_CHANNEL,
});
worker.onerror = ({ message }) => end(message || "the script of its worker could not be loaded");
void watch();

async function watch(): Promise<void> {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, Math.min(LOOK_MS, idleMs)));
    await sleepIfIdle();
  }
}

async function sleepIfIdle(): Promise<void> {
  if (performance.now() - usedMs < idleMs) return;
  if (await isAnswering()) return;
  if (performance.now() - usedMs >= idleMs) end("it sleeps");
}

/** An answer may go on for a popup that was closed. */
async function isAnswering(): Promise<boolean> {
  const { models, loading = [] } = await offscreenStats(async () => {});
  return loading.length > 0 || models.some(({ running, waiting }) => running + waiting > 0);
}

/** A worker that never began would fail again in another document. */
function end(reason: string): void {
  channel.postMessage({ kind: hasBegun ? "ended" : "failed", reason });
  worker.terminate();
  close();
}
