// The window that asks the user whether an origin may use the engine.

import { t } from "../page/texts";
import { CONSENT_CHANNEL, type Answer } from "./consents";

const origin = new URLSearchParams(location.search).get("origin") ?? "";
const channel = new BroadcastChannel(CONSENT_CHANNEL);
const { hostname } = new URL(origin);

show("question", t("consentTitle", hostname));
show("details", t("consentText", origin));
show("deny", t("consentDeny")).onclick = () => answer(false);
show("allow", t("consentAllow")).onclick = () => answer(true);

function show(id: string, text: string): HTMLElement {
  const element = document.getElementById(id)!;
  element.textContent = text;
  return element;
}

function answer(isAllowed: boolean): void {
  channel.postMessage({ origin, isAllowed } satisfies Answer);
  close();
}
