// What an extension's engine refuses to those from outside.

import assert from "node:assert/strict";
import { test } from "node:test";
import { build } from "esbuild";

const { outputFiles } = await build({
  entryPoints: [new URL("../src/foreigners.ts", import.meta.url).pathname],
  bundle: true,
  format: "esm",
  write: false,
});
const { claimSessions, refusal } = await import(
  `data:text/javascript,${encodeURIComponent(outputFiles[0].text)}`
);
const IDS = new Set(["One", "Two"]);

function reload(modelId, chatOpts) {
  return { kind: "reload", uuid: "1", content: { modelId, chatOpts } };
}

test("they may name the models of the catalogue", () => {
  for (const modelId of ["One", ["One", "Two"], [], null]) {
    assert.equal(refusal(reload(modelId), IDS), null);
  }
  assert.match(refusal(reload(["One", "Three"]), IDS), /no model "Three"; it has One, Two/);
});

test("they may name no source where the catalogue is not known", () => {
  assert.equal(refusal(reload("Three")), null);
  for (const source of ["hf:a/b/c.gguf", "https://a.example/b", "/b", "b\\c", "b.gguf"]) {
    assert.match(refusal(reload(["One", source])), /name one of its catalogue/);
  }
});

test("they may set nothing about a model, and everything of an answer", () => {
  for (const options of [undefined, null, [], [{}], { temperature: undefined }]) {
    assert.equal(refusal(reload("One", options), IDS), null);
  }
  for (const options of [{ context_window_size: 128 }, [{}, { temperature: 0 }], "text"]) {
    assert.match(refusal(reload("One", options), IDS), /chat options/);
  }
  const request = { messages: [], temperature: 0 };
  const asked = { kind: "chatCompletionNonStreaming", content: { request, modelId: ["One"] } };
  assert.equal(refusal(asked, IDS), null);
  asked.content.chatOpts = [{ conv_template: {} }];
  assert.match(refusal(asked, IDS), /chat options/);
});

test("their sessions are their own", () => {
  const request = (resumable) => ({ request: { extra_body: { resumable } }, modelId: ["One"] });
  for (const [content, named] of [
    [{ sessionId: "a" }, { sessionId: "https://b.example a" }],
    [request({ sessionId: "a" }), request({ sessionId: "https://b.example a" })],
    [request({ session_id: "a" }), request({ session_id: "https://b.example a" })],
    [request({ enabled: true }), request({ enabled: true })],
    [{ request: { extra_body: null } }, { request: { extra_body: null } }],
    [null, null],
  ]) {
    const message = { kind: "any", content };
    claimSessions(message, "https://b.example");
    assert.deepEqual(message.content, named);
  }
});

test("they may ask for answers alone", () => {
  for (const kind of ["getMessage", "unload", "setAppConfig", "customRequest", undefined]) {
    assert.match(refusal({ kind, content: null }, IDS), /only pages of this extension/);
  }
});
