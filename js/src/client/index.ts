// WebLLM's names for pages: an engine in a worker, and the types of what it is asked and answers.

export type * from "./api";
export { prebuiltAppConfig } from "./config";
export type { InitProgressCallback, InitProgressReport, MLCEngineConfig } from "./config";
export { messagePortEndpoint, workerEndpoint } from "./endpoint";
export type { Endpoint, WorkerLike } from "./endpoint";
export type { MLCEngineInterface } from "./engine";
export { CreateWebWorkerMLCEngine, WebWorkerMLCEngine } from "./engine";
export { WebLLMError } from "./errors";
export type { AppConfig, ChatOptions, LogLevel, ModelRecord } from "./messages";
export type * from "./requests";
export type { ChunkStream } from "./stream";
