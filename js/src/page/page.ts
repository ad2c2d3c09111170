// The chat page's entry point: builds the state and the views, and starts saving.

import type { AppConfig } from "../client";
import { Announcer } from "./announcer";
import { Answering } from "./answering";
import { loadAppConfig } from "./config";
import { newId } from "./conversations";
import { detectDevice } from "./device";
import { byId } from "./dom";
import { errorText } from "./format";
import { placeIcons } from "./icons";
import { keep, keepOpened, openConversations, openedConversation } from "./keeping";
import { KeptModels } from "./kept_models";
import { ModelSession } from "./model_session";
import { applyTheme, readSettings } from "./settings";
import { registerSiteWorker } from "./site_worker";
import type { Keepable, State } from "./state";
import { whyNotKept } from "./storage";
import { Store } from "./store";
import { OtherTabs } from "./tabs";
import { Composer } from "./views/composer";
import { Confirm } from "./views/confirm";
import { DeviceNote } from "./views/device_note";
import { ModelBar } from "./views/model_bar";
import { ModelDialog } from "./views/model_dialog";
import { Notices } from "./views/notices";
import { SettingsDialog } from "./views/settings_dialog";
import { Sidebar } from "./views/sidebar";
import { Thread } from "./views/thread";
import { Welcome } from "./views/welcome";

const notices = new Notices();
notices.watchFaults();
const notKept = new Map<Keepable, string>();
const settings = readSettings((error) => notKept.set("settings", whyNotKept(error)));
applyTheme(settings.theme);
addEventListener("pageshow", ({ persisted }) => {
  if (persisted) location.reload(); // it has missed what other tabs did
});
void main();

async function main(): Promise<void> {
  const device = detectDevice();
  const isReloading = registerSiteWorker(async () => (await device).gpu === null);
  placeIcons(document);
  const appConfig = await loadAppConfig().catch((error: unknown) => {
    notices.fault(new Error(`the list of models could not be fetched (${errorText(error)})`));
    return { model_list: [] };
  });
  const models = appConfig.model_list;
  const known = models.find((each) => each.model_id === settings.modelId);
  const opened = openedConversation();
  const store = new Store<State>({
    conversations: [],
    currentId: opened ?? newId(),
    isOpening: opened !== null,
    models,
    kept: new Set(),
    modelId: (known ?? models[0])?.model_id ?? "",
    model: { phase: "none" },
    device: null,
    settings,
    notKept,
    unreadable: "",
  });
  const tabs = new OtherTabs();
  const session = new ModelSession(store, appConfig, tabs);
  const db = openConversations(store, tabs, (id) => answering.reopen(id));
  const answering = new Answering(store, session, db);
  show(store, session, answering, appConfig);
  keep(store, db, answering);
  keepOpened(store);
  if (known) void isReloading.then((is) => is || loadUnlessChosen(store, session, known.model_id));
  store.set("device", await device);
}

function loadUnlessChosen(store: Store<State>, session: ModelSession, modelId: string): void {
  if (store.get("model").phase === "none") session.load(modelId);
}

function show(
  store: Store<State>,
  session: ModelSession,
  answering: Answering,
  appConfig: AppConfig,
): void {
  notices.watch(store);
  const announcer = new Announcer(byId("announcer", HTMLDivElement));
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
