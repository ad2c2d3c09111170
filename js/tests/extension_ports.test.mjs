// The port of an extension's client, whose engine ends before its first reply, or after.

import assert from "node:assert/strict";
import { test } from "node:test";
import { build } from "esbuild";

const built = await build({
  entryPoints: [new URL("../src/extension_ports.ts", import.meta.url).pathname],
  bundle: true,
  format: "esm",
  write: false,
});
const code = Buffer.from(built.outputFiles[0].contents).toString("base64");
const { ExtensionPort } = await import(`data:text/javascript;base64,${code}`);
globalThis.location = { origin: "chrome-extension://mine" };
const HELLO = { kind: "hello", uuid: "1", from: "me", content: null };

class FakeHome extends EventTarget {
  host = "offscreen";
  received = [];

  postMessage(message) {
    this.received.push(message);
  }

  reply(data) {
    this.dispatchEvent(new MessageEvent("message", { data }));
  }

  end(detail) {
    this.dispatchEvent(new CustomEvent("close", { detail }));
  }
}

/** Returns a client's port, the homes that it has opened, and what the client hears. */
function greeted() {
  const homes = [];
  const heard = [];
  const sender = { origin: location.origin };
  const port = {
    sender,
    onDisconnect: { addListener() {} },
    postMessage: (each) => heard.push(each),
  };
  const client = new ExtensionPort(port, () => {
    homes.push(new FakeHome());
    return homes.at(-1);
  });
  client.receive(HELLO);
  return { client, homes, heard };
}

test("the next worker is greeted if one ends before its reply", () => {
  const { homes, heard } = greeted();
  homes[0].end("it was terminated");
  assert.deepEqual(homes[1].received, [{ kind: "hello", uuid: "1", content: null }]);
  homes[1].reply({ kind: "return", uuid: "1", content: { protocol: 4 } });
  const content = { protocol: 4, host: "offscreen" };
  assert.deepEqual(heard, [{ kind: "return", uuid: "1", content, to: "me" }]);
});

test("workers that all end before a reply are an error", () => {
  const { homes, heard } = greeted();
  for (let num = 0; num < 5; num++) homes[num].end("it was terminated");
  assert.equal(homes.length, 5);
  assert.deepEqual(heard, [{ kind: "lost", uuid: "1", reason: "it was terminated", to: "me" }]);
});

test("no worker at all is an error at once", () => {
  const { homes, heard } = greeted();
  homes[0].end(new Error("no offscreen document"));
  assert.equal(homes.length, 1);
  assert.deepEqual(heard, [{ kind: "lost", uuid: "1", reason: "no offscreen document", to: "me" }]);
});

test("a client hears at once that the worker has ended that it knows", () => {
  const { client, homes, heard } = greeted();
  homes[0].reply({ kind: "return", uuid: "1", content: {} });
  client.receive({ kind: "hello", uuid: "2", from: "me", content: null });
  homes[0].end("it was terminated");
  assert.equal(homes.length, 1);
  assert.deepEqual(heard.at(-1), {
    kind: "lost",
    uuid: "2",
    reason: "it was terminated",
    to: "me",
  });
});
