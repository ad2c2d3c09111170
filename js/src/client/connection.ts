// `Connection`: the worker of an engine, and the next one once it is lost.

import { Calls } from "./calls";
import { toEndpoint, type Endpoint, type WorkerLike } from "./endpoint";
import { WorkerLostError } from "./error_classes";
import {
  REPEATABLE,
  type Contents,
  type InitProgress,
  type Kind,
  type ReloadParams,
  type Results,
} from "./messages";
import { unlessAborted, type RequestOptions } from "./request_options";
import { Losses } from "./resumption";

/** How an engine survives the end of its worker. */
export interface Recovery {
  /** Opens the first worker and, when that is lost, the next one. */
  open(): Endpoint;
  /** Whether all answers survive, since the worker keeps them; else those that ask for it. */
  persist: boolean;
  /** The least version that the worker speaks of what we add to WebLLM's protocol; default: none. */
  protocol?: number;
}

type Setting = "setAppConfig" | "setLogLevel";
type Deletion = Contents["deleteResumableSession"];

interface AskOptions extends RequestOptions {
  losses?: Losses;
}

export class Connection {
  /** The models that the worker should have loaded. */
  models: ReloadParams = { modelId: [] };
  private calls: Calls;
  private open: Recovery["open"] | undefined;
  private recovering: Promise<Calls> | undefined;
  private readonly settings: { [K in Setting]?: Contents[K] } = {};
  private deletions: Deletion[] = []; // for the next worker, as this one is lost

  constructor(
    worker: WorkerLike | Recovery,
    private readonly onProgress: (report: InitProgress) => void,
  ) {
    if ("open" in worker) this.open = () => worker.open();
    this.calls =
      "open" in worker
        ? new Calls(worker.open(), onProgress, worker.protocol)
        : new Calls(toEndpoint(worker), onProgress);
  }

  /**
   * Posts a request and returns the content of its reply, see `Calls.call`. Unless it is repeatable,
   * it is not sent twice: it may change the engine, or ask for what only a lost worker knew.
   */
  async call<K extends Kind>(
    kind: K,
    content: Contents[K],
    options: RequestOptions = {},
  ): Promise<Results[K]> {
    if (REPEATABLE.has(kind)) {
      return this.ask((calls) => calls.call(kind, content, options), options);
    }
    return this.once((calls) => calls.call(kind, content, options), options);
  }

  /**
   * Asks the worker: at once if it is there, else the next one. Throws WorkerLostError if it is lost
   * meanwhile, the error of a recovery that fails, and the reason of a signal that aborts.
   */
  async once<Result>(
    ask: (calls: Calls) => Promise<Result>,
    options: RequestOptions = {},
  ): Promise<Result> {
    return ask(this.current() ?? (await this.next(options)));
  }

  /**
   * As `once`, but asks the next worker again if one is lost whose place another may take. Throws
   * WorkerLostError once too many were lost.
   */
  async ask<Result>(
    ask: (calls: Calls) => Promise<Result>,
    { losses = new Losses(), signal }: AskOptions = {},
  ): Promise<Result> {
    for (;;) {
      const calls = this.current() ?? (await this.next({ signal }));
      try {
        return await ask(calls);
      } catch (error) {
        losses.add(this.loss(calls, error));
      }
    }
  }

  /** Posts a message that nobody waits for, if there is a worker. */
  notify<K extends Kind>(kind: K, content: Contents[K]): void {
    this.calls.notify(kind, content);
  }

  /** Posts a setting, to each later worker too. */
  set<K extends Setting>(kind: K, content: Contents[K]): void {
    this.notify(kind, content);
    if (this.open) this.settings[kind] = structuredClone(content);
  }

  /** Has a session deleted, by the next worker if this one is lost before it has done so. */
  delete(session: Deletion): void {
    if (this.isLost) return void this.deletions.push(session);
    const { calls } = this;
    calls.call("deleteResumableSession", session, { isKept: true }).catch((error: unknown) => {
      if (this.open && error === calls.lost) this.delete(session);
    });
  }

  /** Whether another worker will take the place of this one. */
  get isLost(): boolean {
    return this.open !== undefined && this.calls.lost !== undefined;
  }

  speaks(version: number): boolean {
    return this.calls.speaks(version);
  }

  /** Opens the next worker, if this one is lost, which then loads nothing. */
  reopen(): void {
    const { open, calls: lost } = this;
    if (!open || !lost.lost) return;
    lost.close();
    this.calls = new Calls(open(), this.onProgress, lost.protocol);
    const { setAppConfig, setLogLevel } = this.settings;
    if (setAppConfig) this.notify("setAppConfig", setAppConfig);
    if (setLogLevel) this.notify("setLogLevel", setLogLevel);
    for (const each of this.deletions.splice(0)) this.delete(each);
  }

  /** Unloads all models; a lost worker has none. */
  async unload(): Promise<void> {
    if (this.isLost) return;
    const { calls } = this;
    try {
      await calls.call("unload", null); // also while a recovery loads
    } catch (error) {
      this.loss(calls, error);
    }
  }

  /** Ends all requests and streams in the worker. */
  endAll(): void {
    this.calls.endAll();
  }

  /** Closes the way to the worker for good; waiting calls throw WorkerLostError. */
  close(): void {
    this.open = undefined;
    this.calls.close();
  }

  /** The worker, unless it is lost and another one will take its place. */
  private current(): Calls | undefined {
    return this.recovering || this.isLost ? undefined : this.calls;
  }

  /** Waits for the recovery from a lost worker, one for all who wait. */
  private async next(options: RequestOptions): Promise<Calls> {
    if (!this.recovering) {
      this.recovering = this.recover().finally(() => (this.recovering = undefined));
      this.recovering.catch(() => {}); // perhaps nobody waits any more
    }
    return unlessAborted(this.recovering, options);
  }

  /** Opens the next worker, and loads the models that the lost one had. */
  private async recover(): Promise<Calls> {
    const losses = new Losses();
    for (;;) {
      this.reopen();
      const { calls, models } = this;
      try {
        if (models.modelId.length > 0) await calls.call("reload", models);
        return calls;
      } catch (error) {
        losses.add(this.loss(calls, error));
      }
    }
  }

  /** Returns the error if it says that a worker was lost whose place another may take; else throws. */
  private loss(calls: Calls, error: unknown): WorkerLostError {
    if (this.open && error === calls.lost && error instanceof WorkerLostError) return error;
    throw error;
  }
}
