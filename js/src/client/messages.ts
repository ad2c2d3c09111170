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
 * Overrides of what the model file says; None keeps the file's value.
 *
 * The sampling fields are defaults of requests that leave theirs out. As in WebLLM's files,
 * -1 as a window size means that there is none.
 *
 * context_overflow says what becomes of a conversation that outgrows the context window:
 * "error" (the default): the prompt is refused, a running answer ends with finish_reason
 * "length"; "truncate_oldest_messages": the oldest messages but the system's are left out until
 * the rest fits; "shift": the first attention_sink_size tokens and the newer half of the others
 * stay, the rest is forgotten, also in the middle of an answer. `sliding_window_size` is
 * WebLLM's way to say "shift" with a context window of that size.
 *
 * `conv_config` replaces fields of the `conv_template` beside it. The fields at the end are of
 * WebLLM's type too, and have no effect: the model file says what they say.
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
 * The catalogue, and where a browser keeps models.
 *
 * `model_list` left out is the built-in catalogue, `prebuilt_app_config`'s. `cache_backend` is
 * "cache" (the Cache API; so is None), "indexeddb", "opfs", or "none": models are not kept, and
 * fetched each time. Natively it is a directory, whichever of these is named. WebLLM's
 * "cross-origin" is refused: it needs an extension that cannot be used from here.
 * `use_indexed_db` is WebLLM's older way to say "indexeddb", `useIndexedDB` and `models` are its
 * documentation's names of that and of `model_list`. `opfs_access_mode` "auto" is "async" here,
 * "sync" is refused. `use_web_worker`, which WebLLM's examples have, has no effect.
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
 * `model` says where it comes from: a local file or folder, `https://…`, `hf:owner/repo/file` or
 * `pypi:…`, see `webllm.artifacts.source`. `model_path` is the same under an older name; give one
 * of them. A path is one of this disk, or in a browser one of the site that the engine's script
 * is from; there, a path that does not end in ".gguf" is a folder with a "model.gguf" in it.
 * `model_lib`, `model_manifest` and `integrity` are accepted from WebLLM's records and ignored:
 * kernels come with the package, and a model is one file, which `sha256` vouches for.
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

/** WebLLM's hashes ("sha256-<base64>") of the files that its models are made of. */
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
