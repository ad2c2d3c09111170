// Where the engine of a Chrome extension runs.
//
//     offscreen         a Web Worker of the extension's offscreen document: with threads, and without
//                       the time limits of background workers
//     service-worker    the background worker itself

import { ChannelLink, Home, Listeners, type Link } from "../../src/webllm/workers/homes.js";
import { newUuid } from "../../src/webllm/workers/uuid.js";
import type { EngineStats } from "./client/api";
import type { HomeClients } from "./home_clients";

export const OFFSCREEN_CHANNEL = "webllm offscreen";
const LOOK_MS = 500; // between two looks for the document, until its worker answers
// Chrome's errors after which the next look finds a document or opens one: another port was faster, or
// it was closed at once.
const PASSING = /single offscreen document|closed before fully loading/;

/**
 * `address`: of the offscreen document, which is opened if it is not there. One that is there may be
 * about to close: its worker does not answer then, and another one is opened.
 */
export function offscreenHome(address: () => Promise<string>): Home {
  return watchedHome(() => openOffscreen(address));
}

export function ownHome(clients: HomeClients): Home {
  return new Home({ host: "service-worker", open: () => new OwnLink(clients) });
}

/**
 * What the engine of the offscreen document does; nothing once it has ended. Opens none. `look`:
 * rejects without a document; not in that document itself, which cannot find it.
 */
export async function offscreenStats(look = checkOffscreen): Promise<EngineStats> {
  const home = watchedHome(look);
  const uuid = newUuid();
  const stats = await new Promise<EngineStats>((resolve) => {
    home.addEventListener("message", (event) => {
      const { data } = event as MessageEvent<{ uuid: string; content?: EngineStats }>;
      if (data.uuid === uuid) resolve(data.content ?? { models: [] });
    });
    home.addEventListener("close", () => resolve({ models: [] }));
    home.postMessage({ kind: "getEngineStats", uuid, content: null });
  });
  home.close();
  return stats;
}

/** Tells the offscreen document something, if it is there. */
export function tellOffscreen(message: object): void {
  const channel = new BroadcastChannel(OFFSCREEN_CHANNEL);
  channel.postMessage(message);
  channel.close();
}

/** `look`: looks after the document again and again, until its worker has answered. */
function watchedHome(look: () => Promise<void>): Home {
  let isSettled = false;
  const settle = () => (isSettled = true);
  const open = () => {
    const link = new ChannelLink("the extension's offscreen document", OFFSCREEN_CHANNEL);
    const keepLooking = async () => {
      while (!isSettled) {
        await look();
        await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
      }
    };
    keepLooking().catch((error: unknown) => link.onLost(String(error)));
    return link;
  };
  const home = new Home({ host: "offscreen", open });
  home.ready.then(settle, settle);
  return home;
}

async function checkOffscreen(): Promise<void> {
  if (!(await hasOffscreen())) throw new Error("it is not open");
}

async function hasOffscreen(): Promise<boolean> {
  const found = await chrome!.runtime!.getContexts({ contextTypes: ["OFFSCREEN_DOCUMENT"] });
  return found.length > 0;
}

/** Opens the offscreen document, unless the extension has one. */
async function openOffscreen(address: () => Promise<string>): Promise<void> {
  const { offscreen } = chrome ?? {};
  if (!offscreen) throw new Error('the manifest lacks the permission "offscreen"');
  if (await hasOffscreen()) return;
  const url = await address();
  const reasons = ["WORKERS"];
  const justification = "Runs a language model in a Web Worker, which needs threads.";
  await offscreen.createDocument({ url, reasons, justification }).catch((error: unknown) => {
    if (!PASSING.test(String(error))) throw error;
  });
}

class OwnLink extends Listeners implements Link {
  readonly name = "this worker";
  readonly hint = "does its console show an error?";
  readonly needsCalls = false; // those of the port are enough
  readonly mayWait = false;

  constructor(private readonly clients: HomeClients) {
    super();
  }

  post(message: object): void {
    this.clients.receive(structuredClone(message), (reply) => this.onMessage(reply));
  }

  close(): void {}
}
