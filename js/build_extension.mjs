// Bundles what only a Chrome extension has into dist/, with its icons and the translations of its texts.

import { cp, mkdir, writeFile } from "node:fs/promises";
import { build } from "esbuild";

const LANGUAGES = { en: "ENGLISH", de: "GERMAN" };
const OPTIONS = {
  absWorkingDir: import.meta.dirname,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
};

const dist = new URL("dist/", import.meta.url);
await build({
  ...OPTIONS,
  entryPoints: [
    { in: "src/extension/popup.ts", out: "popup" },
    { in: "src/extension/popup.css", out: "popup" },
    { in: "src/extension/background.ts", out: "background" },
    { in: "src/extension/consent.ts", out: "consent" },
    { in: "src/extension/offscreen.ts", out: "offscreen" },
  ],
  outdir: "dist",
  loader: { ".woff2": "file" },
  assetNames: "[name]",
});
for (const [from, to] of [
  ["src/extension/popup.html", "popup.html"],
  ["src/extension/consent.html", "consent.html"],
  ["src/extension/offscreen.html", "offscreen.html"],
  ["src/extension/icons/", "."],
]) {
  await cp(new URL(from, import.meta.url), new URL(to, dist), { recursive: true });
}
for (const [language, name] of Object.entries(LANGUAGES)) {
  const folder = new URL(`_locales/${language}/`, dist);
  await mkdir(folder, { recursive: true });
  const messages = await messagesOf(language, name);
  await writeFile(new URL("messages.json", folder), JSON.stringify(messages, null, 1));
}

/** The texts of a language as Chrome's messages. */
async function messagesOf(language, name) {
  const entryPoints = [`src/page/texts_${language}.ts`];
  const { outputFiles } = await build({ ...OPTIONS, entryPoints, write: false });
  const code = Buffer.from(outputFiles[0].contents).toString("base64");
  const { [name]: texts } = await import(`data:text/javascript;base64,${code}`);
  return Object.fromEntries(Object.entries(texts).map(([key, message]) => [key, { message }]));
}
