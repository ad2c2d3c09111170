// For the script of an extension's background worker. It is built: without dist, run "make site" in webllm's repository.

export * from "./dist/extension_service_worker.js"; // run "make site" in its repository
