// The model of this page, in the engine that all tabs of the site share. Loads the chosen one and
// writes its progress into the state. Another tab may load its own model in its place: then this one
// is loaded again only when the user asks for it.

import {
  DeviceLostError,
  ModelReplacedError,
  NoServiceWorkerAPIError,
  ServiceWorkerInitializationError,
  ServiceWorkerMLCEngine,
  StorageFullError,
  WorkerLostError,
  modelFromFile,
  type AppConfig,
} from "../client";
import { askToKeepModels, namedStore, withStore } from "../client/model_store";
import { ROOT } from "./config";
import { errorText } from "./format";
import { loading, STARTING } from "./loading";
import type { ModelState, State } from "./state";
import { canKeepModels } from "./storage";
import type { Store } from "./store";
import { HAS_LOCKS, type News, type OtherTabs } from "./tabs";

const ENDS = [
  WorkerLostError,
  DeviceLostError,
  ServiceWorkerInitializationError,
  NoServiceWorkerAPIError,
];

type OnLoaded = (engine: ServiceWorkerMLCEngine) => void;

/** One load of a model. */
export interface Session {
  readonly modelId: string;
  readonly loaded: Promise<ServiceWorkerMLCEngine>;
  readonly left: AbortController; // aborted when another model is chosen or loading is cancelled
}

export class ModelSession {
  private session: Session | undefined;
  private engine: ServiceWorkerMLCEngine | undefined;
  private elsewhere = ""; // the model that another tab has begun to load
  private waiting: OnLoaded[] = [];
  private hasBegun = false;
  private readonly begun: Promise<void>;
  private noteBegun = () => {};

  constructor(
    private readonly store: Store<State>,
    private readonly appConfig: AppConfig,
    private readonly tabs: OtherTabs,
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

  /** Loads the chosen model without keeping it in the browser. */
  loadUnkept(): void {
    this.load(this.store.get("modelId"), withStore(this.appConfig, "none"));
  }

  /** Loads a model file from this disk; the browser reads it in place. */
  async loadFile(file: File): Promise<void> {
    const record = { ...(await modelFromFile(file)), size_bytes: file.size };
    const others = this.store.get("models").filter((each) => each.model_id !== record.model_id);
    this.store.set("models", [...others, record]);
    this.load(record.model_id);
  }

  /**
   * Returns the chosen model once it is loaded, and starts loading it if necessary. If another load
   * replaces this one, waits for that. Throws what loading throws. Returns null after `cancel`.
   */
  async ready(): Promise<Session | null> {
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
   * opened. Returns null for any other.
   */
  async expected(modelId: string): Promise<Session | null> {
    const isLast = this.store.get("settings").modelId === modelId;
    if (!this.hasBegun && isLast && this.store.get("modelId") === modelId) await this.begun;
    return this.session?.modelId === modelId ? this.ready() : null;
  }

  /** Returns the engine once it has a model. */
  async whenLoaded(): Promise<ServiceWorkerMLCEngine> {
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

  private async begin(session: Session, appConfig: AppConfig): Promise<ServiceWorkerMLCEngine> {
    const { modelId, left } = session;
    if (modelId === "")
      throw new Error("the list of models is empty; reload the page or open a file");
    const canKeep = namedStore(appConfig) !== null || (await canKeepModels());
    left.signal.throwIfAborted();
    const engine = (this.engine ??= this.connect());
    const { model_list: _, ...config } = canKeep ? appConfig : withStore(appConfig, "none");
    engine.setAppConfig({ ...config, model_list: this.store.get("models") });
    this.tabs.tell({ kind: "loading", modelId, root: ROOT.href });
    await engine.reload(modelId, undefined, { signal: left.signal });
    const device = await engine.getDeviceName();
    if (this.session !== session) return engine;
    this.store.set("model", { phase: "ready", device, isShared: HAS_LOCKS });
    this.store.set("settings", { ...this.store.get("settings"), modelId });
    this.tabs.tell({ kind: "loaded", modelId, root: ROOT.href });
    for (const tell of this.waiting.splice(0)) tell(engine);
    return engine;
  }

  /** Its worker may be lost, and replaced, at any time; the engine takes care of that. */
  private connect(): ServiceWorkerMLCEngine {
    return new ServiceWorkerMLCEngine({
      root: ROOT,
      initProgressCallback: (report) => {
        const last = this.store.get("model");
        if (last.phase === "loading") this.store.set("model", loading(report, last));
      },
    });
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
