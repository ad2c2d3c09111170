// The worker and the model in it: loads the chosen model, and says in the state how far it is.

import { WebLLMError, WebWorkerMLCEngine, type AppConfig } from "../client";
import { WORKER } from "./config";
import type { Device } from "./device";
import { loading, STARTING } from "./loading";
import type { State } from "./state";
import type { Store } from "./store";

interface Session {
  engine: WebWorkerMLCEngine;
  loaded: Promise<void>;
}

export class ModelSession {
  private session: Session | undefined;

  constructor(
    private readonly store: Store<State>,
    private readonly appConfig: AppConfig,
    private readonly device: Promise<Device>,
  ) {}

  /** Chooses a model and begins to load it, in a new worker. */
  load(modelId: string): void {
    this.close();
    this.store.set("modelId", modelId);
    const engine = this.start();
    const session = { engine, loaded: this.reload(engine, modelId) };
    session.loaded.catch((error: unknown) => this.fail(session, error));
    this.session = session;
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
    if (this.session && error instanceof WebLLMError && error.name === "WorkerLostError") {
      this.fail(this.session, error);
    }
  }

  private start(): WebWorkerMLCEngine {
    this.store.set("model", STARTING);
    return new WebWorkerMLCEngine(new Worker(WORKER, { type: "module" }), {
      appConfig: this.appConfig,
      initProgressCallback: (report) => {
        const last = this.store.get("model");
        if (last.phase === "loading") this.store.set("model", loading(report, last));
      },
    });
  }

  private async reload(engine: WebWorkerMLCEngine, modelId: string): Promise<void> {
    await engine.reload(modelId);
    this.store.set("model", { phase: "ready", gpuVendor: await this.gpuVendor(engine) });
    this.store.set("settings", { ...this.store.get("settings"), modelId });
  }

  /** null: the model runs on the CPU, as it does where a GPU is imitated in software. */
  private async gpuVendor(engine: WebWorkerMLCEngine): Promise<string | null> {
    const device = await this.device;
    return device.gpu && engine.getGPUVendor().catch(withoutGpu);
  }

  private fail(session: Session, error: unknown): void {
    if (this.session !== session) return; // cancelled, or another model was chosen
    this.close();
    const text = error instanceof Error ? error.message : String(error);
    this.store.set("model", { phase: "failed", error: text });
  }

  private close(): void {
    const { session } = this;
    this.session = undefined;
    session?.engine.terminate();
  }
}

function withoutGpu(error: unknown): null {
  if (error instanceof WebLLMError && error.name === "DeviceNotFoundError") return null;
  throw error;
}
