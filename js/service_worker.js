// For a Service Worker's script. It is built: without dist, run "make site" in webllm's repository.

export * from "./dist/service_worker.js"; // run "make site" in its repository
