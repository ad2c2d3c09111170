// The chat: its state and views, and what is saved. The site's page and an extension's popup open it.

import type { AppConfig, ModelRecord } from "../client";
import { parseName } from "../client/variants";
import { Announcer } from "./announcer";
import { Answering } from "./answering";
import { loadAppConfig } from "./config";
import { newId } from "./conversations";
import type { Device } from "./device";
import { byId } from "./dom";
import { errorText } from "./format";
import { placeIcons } from "./icons";
import { keep, openConversations } from "./keeping";
import { KeptModels } from "./kept_models";
import { ModelSession, type Connect } from "./model_session";
import { applyTheme, readSettings } from "./settings";
import type { Keepable, State } from "./state";
import { whyNotKept } from "./storage";
import { Store } from "./store";
import { OtherTabs } from "./tabs";
import { t } from "./texts";
import { Composer, type Prepare } from "./views/composer";
import { Confirm } from "./views/confirm";
import { DeviceNote } from "./views/device_note";
import { ModelBar } from "./views/model_bar";
import { ModelDialog } from "./views/model_dialog";
import { Notices } from "./views/notices";
import { SettingsDialog } from "./views/settings_dialog";
import { Sidebar } from "./views/sidebar";
import { Thread } from "./views/thread";
import { Welcome } from "./views/welcome";

export interface ChatOptions {
  connect: Connect;
  device: Promise<Device>;
  /** Fetches WebLLM's list of models, if this page may load them. */
  fetchListed?: () => Promise<ModelRecord[]>;
  /** The conversation that is shown first. */
  currentId?: string | null;
  prepare?: Prepare;
  /** More settings. */
  moreSettings?: () => HTMLElement[];
}

export interface Chat {
  store: Store<State>;
  session: ModelSession;
  composer: Composer;
  confirm: Confirm;
  models: ModelDialog;
  kept: KeptModels;
  /** Loads the model that was loaded last, if there is one and none is chosen meanwhile. */
  loadLast(): void;
  /** As `loadLast`, but loads it only for the next question. */
  sleepLast(): void;
}

/** Opens the chat in this document, which has the elements of index.html. */
export async function openChat(options: ChatOptions): Promise<Chat> {
  const notices = new Notices();
  notices.watchFaults();
  const notKept = new Map<Keepable, string>();
  const settings = readSettings((error) => notKept.set("settings", whyNotKept(error)));
  applyTheme(settings.theme);
  placeIcons(document);
  const appConfig = await loadAppConfig().catch((error: unknown) => {
    notices.fault(new Error(t("noCatalogue", errorText(error))));
    return { model_list: [] };
  });
  const known = await lastModel(appConfig, settings.modelId, options);
  const ours: ModelRecord[] = appConfig.model_list;
  const models = known && !ours.includes(known) ? [...ours, known] : ours;
  const store = new Store<State>({
    conversations: [],
    currentId: options.currentId ?? newId(),
    isOpening: options.currentId != null,
    models,
    listed: [],
    kept: new Set(),
    modelId: (known ?? models[0])?.model_id ?? "",
    model: { phase: "none" },
    device: null,
    settings,
    notKept,
    unreadable: "",
  });
  const tabs = new OtherTabs();
  const session = new ModelSession(store, appConfig, tabs, options.connect);
  const db = openConversations(store, tabs, (id) => answering.reopen(id));
  const answering = new Answering(store, session, db);
  notices.watch(store);
  const views = show(store, session, answering, appConfig, options);
  keep(store, db, answering);
  void options.device.then((device) => store.set("device", device));
  const isLeft = () => known !== undefined && store.get("model").phase === "none";
  return {
    store,
    session,
    loadLast: () => void (isLeft() && session.load(store.get("modelId"))),
    sleepLast: () => void (isLeft() && session.sleep()),
    ...views,
  };
}

/** The model that was loaded last: of this site, or of WebLLM's list. */
async function lastModel(
  { model_list: models }: AppConfig,
  modelId: string | null,
  { fetchListed }: ChatOptions,
): Promise<ModelRecord | undefined> {
  const has = (each: ModelRecord) => each.model_id === modelId;
  const known = models.find(has);
  if (known || !modelId || !parseName(modelId)) return known;
  return (await fetchListed?.().catch(() => []))?.find(has);
}

function show(
  store: Store<State>,
  session: ModelSession,
  answering: Answering,
  appConfig: AppConfig,
  { prepare, moreSettings, fetchListed }: ChatOptions,
): Pick<Chat, "composer" | "confirm" | "kept" | "models"> {
  const announcer = new Announcer(byId("announcer", HTMLDivElement));
  const confirm = new Confirm();
  const kept = new KeptModels(store, appConfig);
  const composer = new Composer(store, answering, prepare);
  const models = new ModelDialog(store, session, kept, confirm, fetchListed);
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
  new ModelBar(store, session, () => models.open());
  new DeviceNote(store);
  new SettingsDialog(store, moreSettings);
  return { composer, confirm, kept, models };
}
