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
 * Options of a model that override its file; None keeps the file's value.
 *
 * The sampling fields are the defaults of requests. As in WebLLM's files, a window size of -1
 * means none.
 *
 * context_overflow: what happens when a conversation outgrows the context window.
 * "error" (the default) refuses the prompt and ends a running answer with finish_reason "length".
 * "truncate_oldest_messages" leaves out the oldest messages, but not the system's, until the rest
 * fits. "shift" keeps the first attention_sink_size tokens and the newer half of the others, and
 * drops the rest, even in the middle of an answer. `sliding_window_size` is WebLLM's spelling of
 * "shift" with a context window of that size.
 *
 * conv_config: fields that replace those of `conv_template`. The fields after it are accepted from
 * WebLLM without effect, since the model file contains their values.
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
 * The list of models, and the browser's store for them.
 *
 * model_list: by default the built-in list, see `prebuilt_app_config`.
 * cache_backend: "cache" (the Cache API, the default), "indexeddb", "opfs", or "none", which
 * downloads a model each time. Outside of a browser, models are stored in a directory, and "none"
 * is refused. WebLLM's "cross-origin" is always refused, since it needs a browser extension.
 * opfs_access_mode: "async" or "auto", which mean the same here; "sync" is refused.
 * use_indexed_db: WebLLM's older spelling of "indexeddb". `useIndexedDB` and `models` are its
 * documentation's names for that and for `model_list`.
 * use_web_worker: accepted from WebLLM's examples, without effect.
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
 * One model of the list.
 *
 * `model` is its source: a local file or folder, `https://…`, `hf:owner/repo/file` or `pypi:…`,
 * see `webllm.artifacts.source`. `model_path` is an older name for it; give one of them. In a
 * browser, a path belongs to the site of the engine's script, and one that does not end in ".gguf"
 * is a folder that contains "model.gguf". `model_lib`, `model_manifest` and `integrity` are
 * accepted from WebLLM's records and ignored: the package contains the kernels, and a model is one
 * file with the hash `sha256`.
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

/** WebLLM's hashes ("sha256-<base64>") of its models' files. */
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
