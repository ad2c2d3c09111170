// The window that asks the user whether an origin may use the engine.

import { CONSENT_CHANNEL, type Answer } from "./consents";

const origin = new URLSearchParams(location.search).get("origin") ?? "";
const channel = new BroadcastChannel(CONSENT_CHANNEL);
const { hostname } = new URL(origin);

show("question", `Let ${hostname} use your model?`);
show(
  "details",
  `${origin} wants to send messages to the language model of this extension and read its answers. ` +
    "It sees none of your conversations and pages. The answers use this computer's processor, " +
    "memory and power. You can take this back in the settings.",
);
show("deny", "Don’t allow").onclick = () => answer(false);
show("allow", "Allow").onclick = () => answer(true);

function show(id: string, text: string): HTMLElement {
  const element = document.getElementById(id)!;
  element.textContent = text;
  return element;
}

function answer(isAllowed: boolean): void {
  channel.postMessage({ origin, isAllowed } satisfies Answer);
  close();
}
