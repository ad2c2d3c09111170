// Saves settings and conversations. What cannot be saved is noted in the state.

import type { Answering } from "./answering";
import { ConversationDb } from "./conversation_db";
import { withConversation, without } from "./conversations";
import { applyTheme, keepSettings } from "./settings";
import type { Conversation, Keepable, State } from "./state";
import { canKeepModels, whyNotKept } from "./storage";
import type { Store } from "./store";
import { HAS_LOCKS, type OtherTabs } from "./tabs";
import { t } from "./texts";

const PATIENCE_MS = 3000;

/**
 * Returns the database, which puts into the state what other tabs change there, and then calls
 * `onRead`, unless it cannot be known whether another tab has an answer.
 */
export function openConversations(
  store: Store<State>,
  tabs: OtherTabs,
  onRead: (id: string) => void,
): ConversationDb {
  const report = (error: unknown) =>
    noteUnsaved(store, "conversations", error === null ? null : whyNotKept(error));
  return new ConversationDb(tabs, report, (id, conversation) => {
    const here = store.get("conversations");
    const changed = conversation ? withConversation(here, conversation) : without(here, id);
    store.set("conversations", changed);
    if (HAS_LOCKS) onRead(id);
  });
}

/** Starts saving, and loads saved conversations in the background. */
export function keep(store: Store<State>, db: ConversationDb, answering: Answering): void {
  store.watch(["conversations"], () => db.save(store.get("conversations")));
  keepChangedSettings(store);
  void readConversations(store, db, answering).finally(() => store.set("isOpening", false));
  void canKeepModels().then((has) =>
    noteUnsaved(store, "models", has ? null : t("storageBlocked")),
  );
}

const OPENED = "webllm-conversation"; // in sessionStorage: this tab's own

/** The id of the conversation that this tab showed before it was reloaded. */
export function openedConversation(): string | null {
  try {
    return sessionStorage.getItem(OPENED);
  } catch {
    return null; // the site may store nothing, which `notKept` says
  }
}

export function keepOpened(store: Store<State>): void {
  store.watch(["currentId"], () => {
    try {
      sessionStorage.setItem(OPENED, store.get("currentId"));
    } catch {} // as above
  });
}

/** Puts this page's conversations first, since they are newer. */
function withKept(here: Conversation[], kept: Conversation[]): Conversation[] {
  const ids = new Set(here.map((each) => each.id));
  return [...here, ...kept.filter((each) => !ids.has(each.id))];
}

async function readConversations(
  store: Store<State>,
  db: ConversationDb,
  answering: Answering,
): Promise<void> {
  const wait = () => noteUnsaved(store, "conversations", t("storageWaits"));
  const patience = setTimeout(wait, PATIENCE_MS);
  try {
    await db.open();
    noteUnsaved(store, "conversations", null);
  } catch (error) {
    return noteUnsaved(store, "conversations", whyNotKept(error));
  } finally {
    clearTimeout(patience);
  }
  try {
    const { conversations, numUnreadable } = await db.read();
    store.set("conversations", withKept(store.get("conversations"), conversations));
    for (const { id } of conversations) answering.reopen(id);
    if (numUnreadable > 0) store.set("unreadable", leftAsTheyAre(numUnreadable));
  } catch {
    store.set("unreadable", leftAsTheyAre(Infinity));
  }
}

function keepChangedSettings(store: Store<State>): void {
  let before = store.get("settings");
  store.watch(["settings"], () => {
    const settings = store.get("settings");
    if (settings === before) return;
    applyTheme(settings.theme);
    try {
      keepSettings(settings, before);
      before = settings;
      noteUnsaved(store, "settings", null);
    } catch (error) {
      noteUnsaved(store, "settings", whyNotKept(error));
    }
  });
}

function noteUnsaved(store: Store<State>, what: Keepable, why: string | null): void {
  const notKept = new Map(store.get("notKept"));
  if (notKept.get(what) === (why ?? undefined)) return;
  if (why === null) notKept.delete(what);
  else notKept.set(what, why);
  store.set("notKept", notKept);
}

function leftAsTheyAre(count: number): string {
  if (count === 1) return t("unreadableOne");
  return count === Infinity ? t("unreadableAll") : t("unreadableSome", count);
}
