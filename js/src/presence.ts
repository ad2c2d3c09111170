// Notices that a client is gone, by the lock that it holds.

import { presenceLock } from "../../src/webllm/workers/homes.js";

/** Calls back once a client, whose first message has come, is gone. Never without Web Locks. */
export function whenGone(id: unknown, onGone: () => void): void {
  navigator.locks?.request(presenceLock(String(id)), onGone).catch(() => {}); // not allowed here
}
