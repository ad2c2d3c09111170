// The journal's database in a browser that does not answer.

import assert from "node:assert/strict";
import { test } from "node:test";

let numOpened = 0;
let isStuck = true;
const closed = [];

function soon(target, event) {
  queueMicrotask(() => target[event]?.());
  return target;
}

globalThis.indexedDB = {
  open() {
    const number = (numOpened += 1);
    const table = { getAllKeys: () => ({ result: [] }), getAll: () => ({ result: [] }) };
    const transaction = () => {
      const made = { objectStore: () => table };
      return isStuck ? made : soon(made, "oncomplete");
    };
    return soon({ result: { transaction, close: () => closed.push(number) } }, "onsuccess");
  },
};

const { JournalDatabase } = await import("../../src/webllm/artifacts/browser/journal.js");

test("a transaction that never completes is given up, and the next one opens the database anew", async () => {
  const journal = new JournalDatabase(5);
  const message =
    /has not answered for 0.005 s; restart the browser, or leave extra_body.resumable/;
  await assert.rejects(journal.names(), { name: "ArtifactError", message });
  isStuck = false;
  assert.deepEqual(await journal.names(), []);
  assert.deepEqual([numOpened, closed], [2, [1]]);
});
