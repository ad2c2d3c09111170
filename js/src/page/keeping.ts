// Saves settings and conversations. What cannot be saved is noted in the state.

import { ConversationDb } from "./conversation_db";
import { applyTheme, keepSettings } from "./settings";
import type { Conversation, Keepable, State } from "./state";
import { canKeepModels, whyNotKept } from "./storage";
import type { Store } from "./store";

const PATIENCE_MS = 3000;
const BLOCKED = "the browser blocks storage for this site";

/** Starts saving, and loads saved conversations in the background. */
export function keep(store: Store<State>): void {
  const db = new ConversationDb((error) => {
    noteUnsaved(store, "conversations", error === null ? null : whyNotKept(error));
  });
  store.watch(["conversations"], () => db.save(store.get("conversations")));
  keepChangedSettings(store);
  void readConversations(store, db);
  void canKeepModels().then((has) => noteUnsaved(store, "models", has ? null : BLOCKED));
}

/** Puts this page's conversations first, since they are newer. */
function withKept(here: Conversation[], kept: Conversation[]): Conversation[] {
  const ids = new Set(here.map((each) => each.id));
  return [...here, ...kept.filter((each) => !ids.has(each.id))];
}

async function readConversations(store: Store<State>, db: ConversationDb): Promise<void> {
  const wait = () =>
    noteUnsaved(store, "conversations", "another tab of this site is blocking them");
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
  if (count === 1)
    return "One conversation in this browser could not be read. It was left unchanged.";
  const some = count === Infinity ? "The conversations" : `${count} conversations`;
  return `${some} in this browser could not be read. They were left unchanged.`;
}
