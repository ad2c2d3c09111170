// The model of this page, in the engine that all pages of the site or extension share. Loads the chosen one and
// writes its progress into the state. Another tab may load its own model in its place: then this one
// is loaded again only when the user asks for it.

import {
  DeviceLostError,
  ModelReplacedError,
  NoServiceWorkerAPIError,
  ServiceWorkerInitializationError,
  StorageFullError,
  WorkerLostError,
  modelFromFile,
  type AppConfig,
  type InitProgressCallback,
  type ModelRecord,
} from "../client";
import { askToKeepModels, namedStore, withStore } from "../client/model_store";
import type { SharedEngine } from "../client/shared_engine";
import { ROOT } from "./config";
import { isAnswering } from "./conversations";
import { errorText } from "./format";
import { loading, STARTING } from "./loading";
import { sourceOf } from "./model_source";
import type { ModelState, State } from "./state";
import { canKeepModels } from "./storage";
import type { Store } from "./store";
import { HAS_LOCKS, type News, type OtherTabs } from "./tabs";
import { t } from "./texts";

const ENDS = [
  WorkerLostError,
  DeviceLostError,
  ServiceWorkerInitializationError,
  NoServiceWorkerAPIError,
];

type OnLoaded = (engine: SharedEngine) => void;

/** Makes the engine. Its worker may be lost, and replaced, at any time; the engine takes care of that. */
export type Connect = (onProgress: InitProgressCallback, onLost: () => void) => SharedEngine;

/** One load of a model. */
export interface Session {
  readonly modelId: string;
  readonly loaded: Promise<SharedEngine>;
  readonly left: AbortController; // aborted when another model is chosen or loading is cancelled
}

export class ModelSession {
  /** Asks the user whether a model may be loaded for a question. */
  mayLoad: () => Promise<boolean> = async () => true;
  /** Whether the engine has a model, or loads it, although the way to it was lost. */
  isLoaded: (modelId: string) => Promise<boolean> = async () => false;
  private session: Session | undefined;
  private engine: SharedEngine | undefined;
  private elsewhere = ""; // the model that another tab has begun to load
  private waiting: OnLoaded[] = [];
  private hasBegun = false;
  private readonly begun: Promise<void>;
  private noteBegun = () => {};

  constructor(
    private readonly store: Store<State>,
    private readonly appConfig: AppConfig,
    private readonly tabs: OtherTabs,
    private readonly connect: Connect,
  ) {
    this.begun = new Promise((resolve) => (this.noteBegun = resolve));
    if (HAS_LOCKS) tabs.hear((news) => this.hear(news)); // else each tab has its own engine
  }

  /** Chooses a model and begins to load it. */
  load(modelId: string, appConfig = this.appConfig): void {
    this.leave();
    this.store.set("modelId", modelId);
    this.store.set("model", STARTING);
    askToKeepModels(appConfig);
    const session: Session = {
      modelId,
      left: new AbortController(),
      loaded: Promise.resolve().then(() => this.begin(session, appConfig)),
    };
    this.session = session;
    session.loaded.catch((error: unknown) => this.fail(session, error));
    this.hasBegun = true;
    this.noteBegun();
  }

  /** Notes that nothing is loaded; the next question loads the chosen model again. */
  sleep(): void {
    this.session = undefined;
    this.store.set("model", { phase: "asleep" });
    this.hasBegun = true;
    this.noteBegun();
  }

  /** Loads the chosen model without keeping it in the browser. */
  loadUnkept(): void {
    this.load(this.store.get("modelId"), withStore(this.appConfig, "none"));
  }

  /** Loads the files of a model from this disk; the browser reads them in place. */
  async loadFiles(files: File[]): Promise<void> {
    const size_bytes = files.reduce((sum, { size }) => sum + size, 0);
    this.loadOther({ ...(await modelFromFile(files)), size_bytes });
  }

  /** Loads a model that is not in this site's catalogue. */
  loadOther(record: ModelRecord): void {
    const others = this.store.get("models").filter((each) => each.model_id !== record.model_id);
    this.store.set("models", [...others, record]);
    this.load(record.model_id);
  }

  /**
   * Returns the chosen model once it is loaded, and starts loading it if necessary. If another load
   * replaces this one, waits for that. Throws what loading throws. Returns null after `cancel`, and
   * if the user does not want the model to be loaded.
   */
  async ready(): Promise<Session | null> {
    if (!this.session && !(await this.mayLoad())) return null;
    if (!this.session) this.load(this.store.get("modelId"));
    while (this.session) {
      const { session } = this;
      try {
        await session.loaded;
        if (!session.left.signal.aborted) return session;
      } catch (error) {
        if (!session.left.signal.aborted) throw error;
      }
    }
    return null;
  }

  /**
   * As `ready`, for a model that is loaded without this call: the page loads the last one when it is
   * opened, or wakes it. Returns null for any other.
   */
  async expected(modelId: string): Promise<Session | null> {
    const isLast = this.store.get("settings").modelId === modelId;
    if (!this.hasBegun && isLast && this.store.get("modelId") === modelId) await this.begun;
    const isAsleep = this.store.get("model").phase === "asleep";
    const expected = isAsleep ? this.store.get("modelId") : this.session?.modelId;
    return expected === modelId ? this.ready() : null;
  }

  /** Returns the engine once it has a model. */
  async whenLoaded(): Promise<SharedEngine> {
    if (this.engine && this.store.get("model").phase === "ready") return this.engine;
    return new Promise((resolve) => this.waiting.push(resolve));
  }

  cancel(): void {
    this.leave();
    this.store.set("model", { phase: "none" });
  }

  /** Handles an answer's error, after which the model may have to be loaded again. */
  check(session: Session, error: unknown): void {
    const isEnd = ENDS.some((kind) => error instanceof kind);
    if (isEnd || error instanceof ModelReplacedError) this.fail(session, error);
  }

  private async begin(session: Session, appConfig: AppConfig): Promise<SharedEngine> {
    const { modelId, left } = session;
    if (modelId === "") throw new Error(t("emptyCatalogue"));
    const canKeep = namedStore(appConfig) !== null || (await canKeepModels());
    left.signal.throwIfAborted();
    const engine = (this.engine ??= this.open());
    const { model_list: _, ...config } = canKeep ? appConfig : withStore(appConfig, "none");
    engine.setAppConfig({ ...config, model_list: this.store.get("models") });
    this.tabs.tell({ kind: "loading", modelId, root: ROOT.href });
    await engine.reload(modelId, undefined, { signal: left.signal });
    await this.showReady(session, engine);
    return engine;
  }

  private async showReady(session: Session, engine: SharedEngine): Promise<void> {
    const { modelId } = session;
    const device = await engine.getDeviceName();
    const { models } = await engine.getEngineStats();
    if (this.session !== session) return;
    const stats = models.find((each) => each.model_id === modelId);
    this.store.set("model", {
      phase: "ready",
      device,
      isShared: HAS_LOCKS,
      memoryBytes: stats?.memory_bytes ?? null,
      contextTokens: stats ? stats.blocks * stats.block_tokens : null,
    });
    this.store.set("settings", { ...this.store.get("settings"), modelId });
    this.tabs.tell({ kind: "loaded", modelId, root: ROOT.href });
    for (const tell of this.waiting.splice(0)) tell(engine);
  }

  private open(): SharedEngine {
    const onProgress: InitProgressCallback = (report) => {
      const last = this.store.get("model");
      if (last.phase !== "loading") return;
      this.store.set("model", loading(report, last, this.isHere()));
    };
    return this.connect(onProgress, () => void this.lose());
  }

  /** Whether the model's file is on this device. */
  private isHere(): boolean {
    const { modelId = "" } = this.session ?? {};
    const model = this.store.get("models").find((each) => each.model_id === modelId);
    const isLocal = model !== undefined && sourceOf(model).kind !== "network";
    return isLocal || this.store.get("kept").has(modelId);
  }

  /**
   * The worker has ended, or only the way to it. Answers under way go on in the next one, which loads
   * the model again.
   */
  private async lose(): Promise<void> {
    const { session, engine } = this;
    const isReady = () => this.session === session && this.store.get("model").phase === "ready";
    if (!session || !engine || !isReady()) return;
    const goesOn = () => this.store.get("conversations").some(isAnswering);
    const isNeeded = goesOn() || (await this.isLoaded(session.modelId));
    if (!isReady()) return; // meanwhile
    if (!isNeeded && !goesOn()) return this.sleep();
    this.store.set("model", STARTING);
    this.showReady(session, engine).catch((error: unknown) => this.fail(session, error));
  }

  private hear(news: News): void {
    if (news.kind === "kept" || news.root !== ROOT.href) return;
    if (news.modelId === this.session?.modelId) return;
    this.elsewhere = news.modelId;
    const isReady = this.store.get("model").phase === "ready";
    if (news.kind === "loaded" && isReady) this.giveWay(news.modelId);
  }

  /** Answers under way get an error of their own. */
  private giveWay(by: string): void {
    this.session = undefined;
    this.store.set("model", { phase: "replaced", by });
  }

  private fail(session: Session, error: unknown): void {
    if (this.session !== session) return;
    if (error instanceof ModelReplacedError) return this.giveWay(this.elsewhere);
    this.session = undefined;
    const failed: ModelState = {
      phase: "failed",
      wasReady: this.store.get("model").phase === "ready",
      error: errorText(error),
      isStorageFull: error instanceof StorageFullError,
    };
    this.store.set("model", failed);
  }

  /** Ends the session. Running answers stop and keep their text. */
  private leave(): void {
    const { session } = this;
    this.session = undefined;
    session?.left.abort();
  }
}
