// The chat page's answers, of which other tabs have some. The database and the model are fakes.

import assert from "node:assert/strict";
import { test } from "node:test";
import { build } from "esbuild";
import { FakeLocks } from "./fake_locks.mjs";
import { until } from "./fake_worker.mjs";

const page = new URL("../src/page/", import.meta.url).pathname;
const { outputFiles } = await build({
  stdin: {
    contents: 'export * from "./answering"; export * from "./store";',
    resolveDir: page,
    loader: "ts",
  },
  bundle: true,
  format: "esm",
  write: false,
});
const locks = new FakeLocks();
Object.defineProperty(globalThis, "navigator", { value: { locks }, configurable: true });
globalThis.reportError = (error) => {
  throw error;
};
const code = Buffer.from(outputFiles[0].contents).toString("base64");
const { Answering, Store } = await import(`data:text/javascript;base64,${code}`);

const ASKED = { modelId: "m", systemPrompt: "", sampling: { seed: 1 } };
const QUESTION = { id: "q", role: "user", text: "q", state: "done" };

/** A tab that shows an answer, of which another one has the lock until `end`. */
function secondTab(id, answer) {
  const message = { id, role: "assistant", asked: ASKED, ...answer };
  const show = (fields) => {
    const messages = [QUESTION, { ...message, ...fields }];
    store.set("conversations", [{ id: "c", changedAt: 1, messages }]);
  };
  const store = new Store({ conversations: [], model: { phase: "ready" } });
  const tab = { numAsked: 0, deleted: [], show };
  const engine = { deleteResumableSession: async (session) => void tab.deleted.push(session) };
  const models = {
    check: () => {},
    expected: async () => ((tab.numAsked += 1), null),
    whenLoaded: async () => engine,
  };
  tab.db = { reread: async () => {}, written: async () => {} };
  tab.answering = new Answering(store, models, tab.db);
  const hold = () => new Promise((resolve) => (tab.end = resolve));
  locks.request(`webllm-chat ${id}`, hold).catch(() => {}); // stolen
  show({});
  tab.answering.reopen("c");
  tab.answerNow = () => store.get("conversations")[0].messages[1];
  return tab;
}

test("an answer that is stopped in another tab keeps what it has by then", async () => {
  const tab = secondTab("a1", { text: "", state: "waiting" });
  tab.show({ text: "Once upon a time", state: "streaming" });
  tab.answering.stop("c");
  await until(() => tab.deleted.length > 0 && !tab.answerNow().asked);
  assert.deepEqual(tab.answerNow(), {
    id: "a1",
    role: "assistant",
    text: "Once upon a time",
    state: "stopped",
  });
  assert.deepEqual(tab.deleted, ["a1"]);
});

test("a stop that comes too late leaves an answer as it has ended", async () => {
  for (const [id, asked] of [
    ["b1", ASKED],
    ["b2", undefined],
  ]) {
    const tab = secondTab(id, { text: "Once", state: "streaming" });
    tab.show({ text: "Once upon a time", state: "done", asked });
    tab.answering.stop("c");
    await until(() => tab.deleted.length > 0 || !asked);
    await until(() => !tab.answerNow().asked);
    const { text, state } = tab.answerNow();
    assert.deepEqual([text, state], ["Once upon a time", "done"]);
  }
});

test("an answer that a third tab takes meanwhile is left to that", async () => {
  const tab = secondTab("c1", { text: "Once", state: "streaming" });
  const rereads = [];
  tab.db.reread = () => new Promise((resolve) => rereads.push(resolve));
  await until(() => tab.end);
  tab.end();
  await until(() => rereads.length === 1);
  await locks.request("webllm-chat c1", { steal: true }, async () => {});
  rereads[0]();
  await until(() => rereads.length === 2);
  assert.deepEqual(tab.deleted, []);
  assert.equal(tab.answerNow().state, "streaming");
  assert.equal(tab.numAsked, 0);
});
