// The chat page: reads what is kept, shows it, and keeps what changes.

import { Announcer } from "./announcer";
import { Answering } from "./answering";
import { loadAppConfig } from "./config";
import { ConversationDb } from "./conversation_db";
import { newId } from "./conversations";
import { detectDevice } from "./device";
import { byId } from "./dom";
import { placeIcons } from "./icons";
import { ModelSession } from "./model_session";
import { applyTheme, keepSettings, readSettings } from "./settings";
import type { State } from "./state";
import { Store } from "./store";
import { Composer } from "./views/composer";
import { Confirm } from "./views/confirm";
import { DeviceNote } from "./views/device_note";
import { ModelBar } from "./views/model_bar";
import { ModelDialog } from "./views/model_dialog";
import { SettingsDialog } from "./views/settings_dialog";
import { Sidebar } from "./views/sidebar";
import { Thread } from "./views/thread";
import { Welcome } from "./views/welcome";

const settings = readSettings();
applyTheme(settings.theme);
main().catch((error: unknown) => {
  byId("device-note", HTMLParagraphElement).textContent = `The page could not start: ${error}`;
  throw error;
});

async function main(): Promise<void> {
  placeIcons(document);
  const [appConfig, db] = await Promise.all([loadAppConfig(), ConversationDb.open()]);
  const models = appConfig.model_list;
  const known = models.find((each) => each.model_id === settings.modelId);
  const store = new Store<State>({
    conversations: await db.all(),
    currentId: newId(),
    models,
    modelId: (known ?? models[0])?.model_id ?? "",
    model: { phase: "none" },
    device: null,
    settings,
  });
  const device = detectDevice();
  const session = new ModelSession(store, appConfig, device);
  show(store, session);
  keep(store, db);
  if (known) session.load(known.model_id);
  store.set("device", await device);
}

function show(store: Store<State>, session: ModelSession): void {
  const announcer = new Announcer(byId("announcer", HTMLDivElement));
  const answering = new Answering(store, session);
  const composer = new Composer(store, answering);
  const dialog = new ModelDialog(store, session);
  new Sidebar(
    store,
    (id) => answering.stop(id),
    new Confirm(),
    () => composer.focus(),
  );
  new Welcome(store, (text) => composer.send(text));
  new Thread(store, answering, announcer, () => composer.focus());
  new ModelBar(store, session, () => dialog.open());
  new DeviceNote(store);
  new SettingsDialog(store);
}

function keep(store: Store<State>, db: ConversationDb): void {
  store.watch(["conversations"], () => db.save(store.get("conversations")));
  store.watch(["settings"], () => {
    keepSettings(store.get("settings"));
    applyTheme(store.get("settings").theme);
  });
}
