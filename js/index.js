// The package. What it exports is built: without dist, run "make site" in webllm's repository.

export * from "./dist/client.js"; // run "make site" in its repository
