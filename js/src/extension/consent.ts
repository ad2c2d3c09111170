// The window that asks the user whether an origin may use the engine.

import type { Port } from "../chrome";
import { byId } from "../page/dom";
import { applyTheme, readSettings } from "../page/settings";
import { t } from "../page/texts";
import { CONSENT_PORT } from "./consents";

const BEAT_MS = 20_000; // by which the background worker stays alive until the answer

const origin = new URLSearchParams(location.search).get("origin") ?? "";
let answer: boolean | undefined; // until the background worker has kept it
let port = connect();
setInterval(() => port.postMessage({}), BEAT_MS);

applyTheme(readSettings(() => {}).theme);
document.documentElement.lang = t("language");
document.title = t("appName");
byId("question", HTMLElement).textContent = t("consentTitle", new URL(origin).host);
byId("details", HTMLElement).textContent = t("consentText", origin);
show("deny", t("consentDeny"), false);
show("allow", t("consentAllow"), true);

/** Connects, and again if the browser stops the background worker, which may not have the answer. */
function connect(): Port {
  const opened = chrome!.runtime!.connect({ name: `${CONSENT_PORT}${origin}` });
  if (answer !== undefined) opened.postMessage({ isAllowed: answer });
  opened.onMessage.addListener(() => close());
  opened.onDisconnect.addListener(() => {
    if (!chrome!.runtime!.lastError) port = connect();
  });
  return opened;
}

function show(id: string, text: string, isAllowed: boolean): void {
  const button = byId(id, HTMLButtonElement);
  button.textContent = text;
  button.addEventListener("click", () => {
    answer = isAllowed;
    port.postMessage({ isAllowed });
  });
}
