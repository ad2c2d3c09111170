// The worker and the model in it: loads the chosen model, and says in the state how far it is.

import {
  StorageFullError,
  WebWorkerMLCEngine,
  WorkerLostError,
  modelFromFile,
  type AppConfig,
} from "../client";
import { WORKER } from "./config";
import { loading, STARTING } from "./loading";
import type { State } from "./state";
import type { Store } from "./store";

interface Session {
  engine: WebWorkerMLCEngine;
  loaded: Promise<void>;
}

const UNKEPT: Partial<AppConfig> = { cacheBackend: "none" };

export class ModelSession {
  private session: Session | undefined;

  constructor(
    private readonly store: Store<State>,
    private readonly appConfig: AppConfig,
  ) {}

  /** Chooses a model and begins to load it, in a new worker. */
  load(modelId: string, appConfig: Partial<AppConfig> = {}): void {
    this.close();
    this.store.set("modelId", modelId);
    void askToKeep();
    const engine = this.start(appConfig);
    const session = { engine, loaded: this.reload(engine, modelId) };
    session.loaded.catch((error: unknown) => this.fail(session, error));
    this.session = session;
  }

  /** Loads the chosen model without keeping it in the browser. */
  loadUnkept(): void {
    this.load(this.store.get("modelId"), UNKEPT);
  }

  /** Loads a model file of this disk, which the browser reads where it lies. */
  async loadFile(file: File): Promise<void> {
    const record = { ...(await modelFromFile(file)), size_bytes: file.size };
    const others = this.store.get("models").filter((each) => each.model_id !== record.model_id);
    this.store.set("models", [...others, record]);
    this.load(record.model_id);
  }

  /** An engine with the chosen model; loads it if that has not begun. Throws what loading throws. */
  async ready(): Promise<WebWorkerMLCEngine> {
    if (!this.session) this.load(this.store.get("modelId"));
    const { engine, loaded } = this.session!;
    await loaded;
    return engine;
  }

  cancel(): void {
    this.close();
    this.store.set("model", { phase: "none" });
  }

  /** After an error of the engine: a worker that is lost has to be made anew. */
  check(error: unknown): void {
    if (this.session && error instanceof WorkerLostError) this.fail(this.session, error);
  }

  private start(appConfig: Partial<AppConfig>): WebWorkerMLCEngine {
    this.store.set("model", STARTING);
    return new WebWorkerMLCEngine(new Worker(WORKER, { type: "module" }), {
      appConfig: { ...this.appConfig, model_list: this.store.get("models"), ...appConfig },
      initProgressCallback: (report) => {
        const last = this.store.get("model");
        if (last.phase === "loading") this.store.set("model", loading(report, last));
      },
    });
  }

  private async reload(engine: WebWorkerMLCEngine, modelId: string): Promise<void> {
    await engine.reload(modelId);
    this.store.set("model", { phase: "ready", device: await engine.getDeviceName() });
    this.store.set("settings", { ...this.store.get("settings"), modelId });
  }

  private fail(session: Session, error: unknown): void {
    if (this.session !== session) return; // cancelled, or another model was chosen
    this.close();
    const text = error instanceof Error ? error.message : String(error);
    const isStorageFull = error instanceof StorageFullError;
    this.store.set("model", { phase: "failed", error: text, isStorageFull });
  }

  private close(): void {
    const { session } = this;
    this.session = undefined;
    session?.engine.terminate();
  }
}

/** So that the browser does not clear the models by itself; only a page can ask. */
async function askToKeep(): Promise<void> {
  await navigator.storage?.persist().catch(() => false);
}
