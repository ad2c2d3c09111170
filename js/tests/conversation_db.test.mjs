// The chat page's conversations in a database that another tab writes too. The database is a fake.

import assert from "node:assert/strict";
import { test } from "node:test";
import { build } from "esbuild";

const page = new URL("../src/page/", import.meta.url).pathname;
const { outputFiles } = await build({
  stdin: { contents: 'export * from "./conversation_db";', resolveDir: page, loader: "ts" },
  bundle: true,
  format: "esm",
  write: false,
});
globalThis.addEventListener = () => {};
globalThis.document = { addEventListener() {} };
const code = Buffer.from(outputFiles[0].contents).toString("base64");
const { ConversationDb } = await import(`data:text/javascript;base64,${code}`);

/** A request that has read `result`. */
function read(result) {
  const request = { result };
  queueMicrotask(() => request.onsuccess?.());
  return request;
}

/** A tab's database, and what it puts into it. */
function tab(table) {
  const puts = [];
  const written = { put: (conversation) => void puts.push(conversation), commit() {} };
  const database = {
    transaction: () => {
      const transaction = { objectStore: () => ({ ...table, ...written }), commit() {} };
      queueMicrotask(() => transaction.oncomplete?.());
      return transaction;
    },
  };
  let hear;
  const tabs = { hear: (listener) => (hear = listener), tell() {} };
  const shown = [];
  const onRead = (_, conversation) => {
    shown.splice(0, 1, conversation);
    db.save([...shown]);
  };
  const db = new ConversationDb(tabs, () => {}, onRead);
  db.opening = Promise.resolve(database);
  db.db = database;
  return { db, puts, shown, tell: (conversationId) => hear({ kind: "kept", conversationId }) };
}

function conversation(text) {
  const answer = { id: "a", role: "assistant", text, state: "done" };
  return { id: "c", changedAt: 1, messages: [answer] };
}

test("a tab that is opened writes nothing in the place of what another one writes", async () => {
  const [older, newer] = [conversation("Once"), conversation("Once upon a time")];
  const { db, puts, shown, tell } = tab({ get: () => read(older), getAll: () => read([newer]) });
  tell("c"); // what the other tab wrote first, as this one is about to read all
  await new Promise(setImmediate);
  await db.read();
  db.save([...shown]); // as the page does with what it has read
  await db.written();
  assert.deepEqual(shown, [older]);
  assert.deepEqual(puts, []);
});
