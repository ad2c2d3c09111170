// The entry point of the extension's popup, and of the same page in a tab.

import { ExtensionServiceWorkerMLCEngine, ServiceWorkerMLCEngine } from "../client";
import { offscreenStats } from "../extension_homes";
import { openChat, type Chat } from "../page/chat";
import { ROOT } from "../page/config";
import { newId } from "../page/conversations";
import { detectDevice } from "../page/device";
import { byId } from "../page/dom";
import type { Connect } from "../page/model_session";
import { readItem, writeItem } from "../page/storage";
import { placeTexts, t } from "../page/texts";
import { engineSettings } from "./engine_settings";
import { asksToLoad, downloads, FirstRun } from "./first_run";
import { PageContext } from "./page_context";

const CONVERSATION = "webllm-popup-conversation";
const DRAFT = "webllm-popup-draft";

/** Whether the engine runs behind the background worker, and not in this page. */
const isBehindWorker = chrome?.runtime?.getManifest().background !== undefined;

async function main(): Promise<void> {
  document.documentElement.lang = t("language");
  document.title = t("appName");
  placeTexts(document);
  void markTab();
  const chat = await openChat({
    connect,
    device: detectDevice(),
    currentId: kept(CONVERSATION) || newId(),
    prepare: (id) => prepare(id),
    moreSettings: isBehindWorker ? engineSettings : () => [],
  });
  const { store, session, composer, confirm, models } = chat;
  const page = new PageContext(store, pageTab(), (text) => composer.send(text));
  const prepare = async (conversationId: string) => {
    if (!(await loads(chat))) return null;
    const taken = await page.take(conversationId);
    return taken === "failed" ? null : { page: taken };
  };
  const asks = async () => {
    await chat.kept.look();
    return asksToLoad(store, confirm);
  };
  let asking: Promise<boolean> | undefined;
  session.mayLoad = () => (asking ??= asks().finally(() => (asking = undefined)));
  session.isLoaded = async (modelId) => (await loadedIds())?.includes(modelId) ?? false;
  new FirstRun(store, session, () => models.open());
  byId("quick-new", HTMLButtonElement).addEventListener("click", () => {
    store.set("currentId", newId());
    composer.focus();
  });
  byId("open-tab", HTMLButtonElement).addEventListener("click", () => void openTab());
  store.watch(["currentId"], () => keep(CONVERSATION, store.get("currentId")));
  keepDraft();
  composer.focus();
  void page.look();
  await begin(chat);
}

/** Wakes no engine, and takes the place of no model that a website uses. */
async function begin({ store, kept, sleepLast, loadLast }: Chat): Promise<void> {
  if (!isBehindWorker) {
    await kept.look();
    if (!downloads(store)) loadLast();
    return;
  }
  const loaded = await loadedIds();
  if (loaded === null || loaded.includes(store.get("modelId"))) return loadLast();
  if (loaded.length === 0) sleepLast();
}

const connect: Connect = (initProgressCallback, onDisconnect) =>
  isBehindWorker
    ? new ExtensionServiceWorkerMLCEngine({ initProgressCallback, onDisconnect })
    : new ServiceWorkerMLCEngine({ host: "tab", root: ROOT, initProgressCallback });

/** Whether a model is loaded or will be; the user may refuse to download it. */
async function loads({ store, session }: Chat): Promise<boolean> {
  const { phase } = store.get("model");
  if (phase === "ready" || phase === "loading") return true;
  const isMeant = await session.mayLoad();
  if (isMeant) session.load(store.get("modelId"));
  return isMeant;
}

/** The ids of the offscreen document's models; null if the engine is in the background worker. */
async function loadedIds(): Promise<string[] | null> {
  if (!chrome?.offscreen) return null;
  const { models, loading = [] } = await offscreenStats();
  return [...loading, ...models.map((each) => each.model_id)];
}

/** In a tab the page may be of any size. */
async function markTab(): Promise<void> {
  const isTab = (await chrome?.tabs?.getCurrent()) !== undefined;
  document.documentElement.toggleAttribute("data-tab", isTab);
}

/** The tab of the page that a popup was opened on, in a tab that it has opened. */
function pageTab(): number | null {
  const tab = new URLSearchParams(location.search).get("tab");
  return tab === null ? null : Number(tab);
}

async function openTab(): Promise<void> {
  const { runtime, tabs } = chrome ?? {};
  const [tab] = (await tabs?.query({ active: true, currentWindow: true })) ?? [];
  const page = tab?.id === undefined ? "" : `?tab=${tab.id}`;
  await tabs?.create({ url: runtime?.getURL(`popup.html${page}`) ?? "" });
}

/** A popup closes whenever the user clicks elsewhere: what is written is there again. */
function keepDraft(): void {
  const field = byId("prompt", HTMLTextAreaElement);
  field.value = kept(DRAFT);
  field.addEventListener("input", () => keep(DRAFT, field.value));
  field.dispatchEvent(new Event("input"));
}

function kept(key: string): string {
  try {
    return readItem(key) ?? "";
  } catch {
    return ""; // the user blocks it
  }
}

function keep(key: string, text: string): void {
  try {
    writeItem(key, text);
  } catch {
    // as above
  }
}

void main();
