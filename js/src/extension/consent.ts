// The window that asks the user whether an origin may use the engine.

import { byId } from "../page/dom";
import { applyTheme, readSettings } from "../page/settings";
import { t } from "../page/texts";
import { CONSENT_PORT } from "./consents";

const BEAT_MS = 20_000; // by which the background worker stays alive until the answer

const origin = new URLSearchParams(location.search).get("origin") ?? "";
const port = chrome!.runtime!.connect({ name: `${CONSENT_PORT}${origin}` });
port.onDisconnect.addListener(() => close()); // nobody waits for the answer any more
setInterval(() => port.postMessage({}), BEAT_MS);

applyTheme(readSettings(() => {}).theme);
document.documentElement.lang = t("language");
document.title = t("appName");
byId("question", HTMLElement).textContent = question(new URL(origin));
byId("origin", HTMLElement).textContent = origin;
byId("details", HTMLElement).textContent = t("consentText", t("appName"));
show("deny", t("consentDeny"), false);
show("allow", t("consentAllow"), true);

/** An extension's host is its id, by which nobody knows it. */
function question({ protocol, host }: URL): string {
  return protocol === "chrome-extension:" ? t("consentTitleExtension") : t("consentTitle", host);
}

function show(id: string, text: string, isAllowed: boolean): void {
  const button = byId(id, HTMLButtonElement);
  button.textContent = text;
  button.addEventListener("click", () => {
    port.postMessage({ isAllowed });
    close();
  });
}
