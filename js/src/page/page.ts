// The chat page: reads what is kept, shows it, and keeps what changes.

import { Announcer } from "./announcer";
import { Answering } from "./answering";
import { loadAppConfig } from "./config";
import type { AppConfig } from "../client";
import { ConversationDb } from "./conversation_db";
import { newId } from "./conversations";
import { detectDevice } from "./device";
import { byId } from "./dom";
import { placeIcons } from "./icons";
import { KeptModels } from "./kept_models";
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
    kept: new Set(),
    modelId: (known ?? models[0])?.model_id ?? "",
    model: { phase: "none" },
    device: null,
    settings,
  });
  const session = new ModelSession(store, appConfig);
  show(store, session, appConfig);
  keep(store, db);
  if (known) session.load(known.model_id);
  store.set("device", await detectDevice());
}

function show(store: Store<State>, session: ModelSession, appConfig: AppConfig): void {
  const announcer = new Announcer(byId("announcer", HTMLDivElement));
  const answering = new Answering(store, session);
  const confirm = new Confirm();
  const kept = new KeptModels(store, appConfig);
  const composer = new Composer(store, answering);
  const dialog = new ModelDialog(store, session, kept, confirm);
  new Sidebar(
    store,
    (id) => answering.stop(id),
    confirm,
    () => composer.focus(),
  );
  new Welcome(store, (text) => composer.send(text));
  new Thread(store, answering, announcer, () => composer.focus());
  store.watch(["model"], () => {
    if (store.get("model").phase !== "loading") void kept.look();
  });
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
