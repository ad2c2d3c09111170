// Handles a reload that arrives while Python starts: reports progress and starts downloading the
// model. All other messages wait.

import { isAnythingStored } from "../../src/webllm/artifacts/browser/stores.js";
import { namedModels, type AppConfig, type AppConfigLike } from "./client/config";
import type { InitProgressCallback, ModelRecord } from "./client/messages";
import type { Prefetch } from "./prefetch";

const SHARE = 0.1; // of a reload's progress; the rest is Python's, see host.py

type Early =
  | { kind: "setAppConfig"; content: AppConfigLike }
  | { kind: "reload"; uuid: string; content: { modelId: [string, ...unknown[]] } }
  | { kind: "unload" }
  | { kind: undefined };

type Post = (message: InitProgressCallback) => void;

interface Reload {
  arrival: number; // ms
  post: Post;
}

export class Starting {
  private readonly appConfigs = new Map<Post, AppConfigLike>(); // by client
  private progress = 0; // 0 to 1, of the start
  private readonly reloads = new Map<string, Reload>(); // by uuid

  constructor(
    private readonly prefetch: Prefetch,
    private readonly site: Promise<AppConfig | null>,
  ) {}

  /** Looks at a client's message, which Python will answer later. */
  observe(given: unknown, post: Post): void {
    const message = given as Early;
    if (message.kind === "setAppConfig") this.appConfigs.set(post, message.content);
    if (message.kind === "unload") this.stop();
    if (message.kind !== "reload") return;
    this.reloads.set(message.uuid, { arrival: performance.now(), post });
    this.report(message.uuid);
    this.fetchModel(message, this.appConfigs.get(post)).catch(() => {}); // Python will meet the same error, and report it
  }

  /** `progress`: how much of the start is done, 0 to 1. */
  advance(progress: number): void {
    this.progress = progress;
    for (const uuid of this.reloads.keys()) this.report(uuid);
  }

  /** Python will reject the reloads, which `unload` has stopped. */
  private stop(): void {
    this.reloads.clear();
    this.prefetch.stop();
  }

  private report(uuid: string): void {
    const reload = this.reloads.get(uuid);
    if (!reload) return;
    const seconds = (performance.now() - reload.arrival) / 1000;
    const content = {
      progress: SHARE * this.progress,
      timeElapsed: seconds,
      text: "Starting Python",
      phase: "runtime",
    };
    reload.post({ kind: "initProgressCallback", uuid, content });
  }

  private async fetchModel(
    { uuid, content }: Early & { kind: "reload" },
    appConfig: AppConfigLike | undefined,
  ): Promise<void> {
    if (appConfig?.hubUrl || appConfig?.hubToken) return; // Python knows where they lead
    const [modelId] = content.modelId;
    const [site, mayBeStored] = await Promise.all([this.site, isAnythingStored()]);
    if (mayBeStored || !this.reloads.has(uuid)) return;
    const record = find(modelId, appConfig && namedModels(appConfig), site);
    const model = record?.model?.startsWith("pypi:") ? sameFile(record, site) : record?.model;
    if (model === undefined) return;
    const url = new URL(model, location.href);
    url.hash = ""; // it may be the file's hash
    const isSingle = /^https?:.*\.gguf$/.test(url.href) && !/-\d{5}-of-\d{5}\.gguf$/.test(url.href);
    if (isSingle) this.prefetch.begin(url); // Python resolves other sources
  }
}

/** Returns a model's record from the client's catalogue, or from the site's if it gave none. */
function find(
  modelId: string,
  named: ModelRecord[] | undefined,
  site: AppConfig | null,
): ModelRecord | undefined {
  return (named ?? site?.model_list)?.find((each) => each.model_id === modelId);
}

/** Returns the site's copy of the file that a record names, found by its hash. */
function sameFile(record: ModelRecord, site: AppConfig | null): string | undefined {
  return site?.model_list.find((each) => each.sha256 && each.sha256 === record.sha256)?.model;
}
