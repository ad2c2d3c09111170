// The worker and its model. Loads the chosen model and writes its progress into the state.

import {
  DeviceLostError,
  StorageFullError,
  WebWorkerMLCEngine,
  WorkerLostError,
  modelFromFile,
  workerEndpoint,
  type AppConfig,
  type Endpoint,
} from "../client";
import { askToKeepModels, namedStore, withStore } from "../client/model_store";
import { WORKER_URL } from "./config";
import { errorText } from "./format";
import { loading, STARTING } from "./loading";
import type { ModelState, State } from "./state";
import { canKeepModels } from "./storage";
import type { Store } from "./store";

/** One load of a model, in a worker of its own. */
export interface Session {
  readonly loaded: Promise<WebWorkerMLCEngine>;
  readonly left: AbortController; // aborted when another model is chosen or loading is cancelled
  engine?: WebWorkerMLCEngine; // set when its worker starts
}

export class ModelSession {
  private session: Session | undefined;

  constructor(
    private readonly store: Store<State>,
    private readonly appConfig: AppConfig,
  ) {}

  /** Chooses a model and begins to load it, in a new worker. */
  load(modelId: string, appConfig = this.appConfig): void {
    this.leave();
    this.store.set("modelId", modelId);
    this.store.set("model", STARTING);
    askToKeepModels(appConfig);
    const session: Session = {
      left: new AbortController(),
      loaded: Promise.resolve().then(() => this.begin(session, modelId, appConfig)),
    };
    this.session = session;
    session.loaded.catch((error: unknown) => this.fail(session, error));
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

  cancel(): void {
    this.leave();
    this.store.set("model", { phase: "none" });
  }

  /** Handles an answer's error. If the worker or device is lost, the model must be loaded again. */
  check(session: Session, error: unknown): void {
    const isLost = error instanceof DeviceLostError || error instanceof WorkerLostError;
    if (isLost) this.fail(session, error);
  }

  private async begin(
    session: Session,
    modelId: string,
    appConfig: AppConfig,
  ): Promise<WebWorkerMLCEngine> {
    if (modelId === "")
      throw new Error("the list of models is empty; reload the page or open a file");
    const canKeep = namedStore(appConfig) !== null || (await canKeepModels());
    session.left.signal.throwIfAborted();
    const engine = this.start(session, canKeep ? appConfig : withStore(appConfig, "none"));
    session.engine = engine;
    await engine.reload(modelId);
    this.show(session, { phase: "ready", device: await engine.getDeviceName() });
    this.store.set("settings", { ...this.store.get("settings"), modelId });
    return engine;
  }

  private start(session: Session, appConfig: AppConfig): WebWorkerMLCEngine {
    const worker = workerEndpoint(new Worker(WORKER_URL, { type: "module" }));
    const onLost = (reason: string) =>
      this.fail(session, new Error(`the worker is lost: ${reason}`));
    return new WebWorkerMLCEngine(watched(worker, onLost), {
      appConfig: { ...appConfig, model_list: this.store.get("models") },
      initProgressCallback: (report) => {
        const last = this.store.get("model");
        if (last.phase === "loading") this.show(session, loading(report, last));
      },
    });
  }

  private show(session: Session, model: ModelState): void {
    if (this.session === session) this.store.set("model", model);
  }

  private fail(session: Session, error: unknown): void {
    this.show(session, {
      phase: "failed",
      wasReady: this.store.get("model").phase === "ready",
      error: errorText(error),
      isStorageFull: error instanceof StorageFullError,
    });
    if (this.session === session) this.session = undefined;
    session.engine?.terminate();
  }

  /** Ends the session. Running answers stop and keep their text. */
  private leave(): void {
    const { session } = this;
    this.session = undefined;
    session?.left.abort();
    session?.engine?.terminate();
  }
}

/** The endpoint, which also reports its loss while no call is waiting. */
function watched(endpoint: Endpoint, onLost: (reason: string) => void): Endpoint {
  return {
    ...endpoint,
    listen: (onMessage, onLostToo) =>
      endpoint.listen(onMessage, (reason) => {
        onLostToo(reason);
        onLost(String(reason));
      }),
  };
}
