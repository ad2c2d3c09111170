// Made by client_types.py from src/webllm/workers/messages.py; do not edit.

import type { ConvTemplateConfig } from "./conv_template";

export interface Reload {
  kind: "reload";
  uuid: string;
  content: ReloadParams;
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
 * `conv_config` replaces fields of the `conv_template` beside it. The fields from
 * `tokenizer_files` on belong to WebLLM's type but have no effect: the model file has their
 * values.
 */
export interface ChatOptions {
  context_window_size?: number | null;
  sliding_window_size?: number | null;
  attention_sink_size?: number | null;
  context_overflow?: "error" | "shift" | "truncate_oldest_messages" | null;
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

export interface ChatCompletionNonStreaming {
  kind: "chatCompletionNonStreaming";
  uuid: string;
  content: EngineParams;
}

/**
 * The models that the client expects; a worker that was restarted loads them by itself.
 *
 * None: whatever the worker has loaded. WebLLM's clients always say.
 */
export interface EngineParams {
  request: Record<string, unknown>;
  modelId?: string[] | null;
  chatOpts?: ChatOptions[] | null;
}

export interface ChatCompletionStreamInit {
  kind: "chatCompletionStreamInit";
  uuid: string;
  content: StreamInitParams;
}

/** `stream_id` names the stream; without one it is the only one of its model, as in WebLLM. */
export interface StreamInitParams {
  request: Record<string, unknown>;
  modelId?: string[] | null;
  chatOpts?: ChatOptions[] | null;
  selectedModelId?: string | null;
  streamId?: string | null;
}

export interface CompletionNonStreaming {
  kind: "completionNonStreaming";
  uuid: string;
  content: EngineParams;
}

export interface CompletionStreamInit {
  kind: "completionStreamInit";
  uuid: string;
  content: StreamInitParams;
}

/** Of either kind of stream. The answer after the last chunk has no content. */
export interface CompletionStreamNextChunk {
  kind: "completionStreamNextChunk";
  uuid: string;
  content: NextChunkParams;
}

export interface NextChunkParams {
  selectedModelId?: string | null;
  streamId?: string | null;
}

/** Ends a stream of either kind that is read no further. Answered once it has ended. */
export interface CompletionStreamReturn {
  kind: "completionStreamReturn";
  uuid: string;
  content: NextChunkParams;
}

export interface Embedding {
  kind: "embedding";
  uuid: string;
  content: EngineParams;
}

export interface ForwardTokensAndSample {
  kind: "forwardTokensAndSample";
  uuid: string;
  content: ForwardTokensAndSampleParams;
}

export interface ForwardTokensAndSampleParams {
  modelId?: string | null;
  inputIds: number[];
  isPrefill?: boolean;
}

export interface RuntimeStatsText {
  kind: "runtimeStatsText";
  uuid: string;
  content: ModelParams;
}

export interface ModelParams {
  modelId?: string | null;
}

export interface GetMessage {
  kind: "getMessage";
  uuid: string;
  content: ModelParams;
}

export interface ResetChat {
  kind: "resetChat";
  uuid: string;
  content: ResetChatParams;
}

export interface ResetChatParams {
  modelId?: string | null;
  keepStats?: boolean;
}

export interface InterruptGenerate {
  kind: "interruptGenerate";
  uuid: string;
  content?: null;
}

export interface Unload {
  kind: "unload";
  uuid: string;
  content?: null;
}

export interface GetMaxStorageBufferBindingSize {
  kind: "getMaxStorageBufferBindingSize";
  uuid: string;
  content?: null;
}

export interface GetGPUVendor {
  kind: "getGPUVendor";
  uuid: string;
  content?: null;
}

/** Answered only if it fails. */
export interface SetLogLevel {
  kind: "setLogLevel";
  uuid: string;
  content: "DEBUG" | "ERROR" | "INFO" | "SILENT" | "TRACE" | "WARN";
}

/** Answered only if it fails. */
export interface SetAppConfig {
  kind: "setAppConfig";
  uuid: string;
  content: AppConfig;
}

/**
 * The catalogue of models, and the browser's store for them.
 *
 * Without `model_list` it is the built-in catalogue of `prebuilt_app_config`. `cache_backend` is
 * "cache" (the Cache API, also if None), "indexeddb", "opfs", or "none" to fetch models each time
 * without storing them. Natively the store is a directory, whatever is named here. WebLLM's
 * "cross-origin" is refused, because it needs a browser extension.
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
  models?: ModelRecord[] | null;
  useIndexedDB?: boolean;
  use_web_worker?: boolean | null;
}

/**
 * One model of the catalogue.
 *
 * `model` is its source: a local file or folder, `https://…`, `hf:owner/repo/file` or `pypi:…`,
 * see `webllm.artifacts.source`. `model_path` is an older name of it; give one of them. In a
 * browser a path is relative to the engine's script, and a path that does not end in ".gguf" is a
 * folder with a "model.gguf" in it. `model_lib`, `model_manifest` and `integrity` are accepted
 * from WebLLM's records and ignored: kernels come with the package, and a model is one file, whose
 * hash is `sha256`.
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

/** WebLLM's hashes ("sha256-<base64>") of the files of a model. */
export interface ModelIntegrity {
  config?: string | null;
  model_lib?: string | null;
  tokenizer?: Record<string, string> | null;
  onFailure?: "error" | "warn" | null;
}

export interface CustomRequest {
  kind: "customRequest";
  uuid: string;
  content: CustomRequestParams;
}

export interface CustomRequestParams {
  requestName: string;
  requestMessage?: unknown;
}

/** Ours: asks for the worker's protocol; the answer's content is a `HelloAnswer`. */
export interface Hello {
  kind: "hello";
  uuid: string;
  content?: null;
}

/** Ours: ends the request or the stream of this uuid. Not answered, nor is such a request. */
export interface Abort {
  kind: "abort";
  uuid: string;
  content?: null;
}

/** Ours, from protocol 2 on: what a loaded model runs on, as text. */
export interface GetDeviceName {
  kind: "getDeviceName";
  uuid: string;
  content: ModelParams;
}

/** Answered with a heartbeat if it has a uuid: that of an extension's page has none. */
export interface KeepAlive {
  kind: "keepAlive";
  uuid?: string | null;
}

export interface Return {
  kind: "return";
  uuid: string;
  content?: unknown;
}

/** `content` is the error as text, as WebLLM has it; `error` is ours. */
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

/** WebLLM's report, and after `text` what is exact behind it. */
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

export type AnyRequest =
  | Reload
  | ChatCompletionNonStreaming
  | ChatCompletionStreamInit
  | CompletionNonStreaming
  | CompletionStreamInit
  | CompletionStreamNextChunk
  | CompletionStreamReturn
  | Embedding
  | ForwardTokensAndSample
  | RuntimeStatsText
  | GetMessage
  | ResetChat
  | InterruptGenerate
  | Unload
  | GetMaxStorageBufferBindingSize
  | GetGPUVendor
  | SetLogLevel
  | SetAppConfig
  | CustomRequest
  | Hello
  | Abort
  | GetDeviceName
  | KeepAlive;

export type AnyAnswer = Return | Throw | InitProgressCallback | Heartbeat;

export type LogLevel = "DEBUG" | "ERROR" | "INFO" | "SILENT" | "TRACE" | "WARN";
