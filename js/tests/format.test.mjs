// How the chat page writes what comes from elsewhere.

import assert from "node:assert/strict";
import { test } from "node:test";
import { build } from "esbuild";

const { outputFiles } = await build({
  entryPoints: [new URL("../src/page/format.ts", import.meta.url).pathname],
  bundle: true,
  format: "esm",
  write: false,
});
const code = Buffer.from(outputFiles[0].contents).toString("base64");
const { sentence } = await import(`data:text/javascript;base64,${code}`);

test("sentences begin with a capital letter, addresses do not", () => {
  assert.equal(sentence("the model: it failed"), "The model: it failed");
  for (const source of ["https://a.example/m.gguf failed", "hf:o/r/m.gguf failed", "pypi:p/m"]) {
    assert.equal(sentence(source), source);
  }
  const inside = "chrome-extension://abc/m.gguf failed";
  assert.equal(sentence(inside), inside);
});
