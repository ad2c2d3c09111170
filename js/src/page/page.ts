// The chat page's entry point.

import { ServiceWorkerMLCEngine, type InitProgressCallback } from "../client";
import { openChat } from "./chat";
import { ROOT } from "./config";
import { detectDevice } from "./device";
import { keepOpened, openedConversation } from "./keeping";
import { fetchListed } from "./listed_models";
import { SiteWorker } from "./site_worker";

addEventListener("pageshow", ({ persisted }) => {
  if (persisted) location.reload(); // it has missed what other tabs did
});
void main();

async function main(): Promise<void> {
  const siteWorker = new SiteWorker();
  if (await siteWorker.takesUpdate()) return;
  const device = detectDevice();
  const isReloading = siteWorker.register(async () => (await device).gpu === null);
  const connect = (initProgressCallback: InitProgressCallback) =>
    new ServiceWorkerMLCEngine({ root: ROOT, initProgressCallback });
  const currentId = openedConversation();
  const chat = await openChat({ connect, device, currentId, fetchListed });
  keepOpened(chat.store);
  if (!(await isReloading)) chat.loadLast();
}
