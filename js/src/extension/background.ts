// The extension's background worker. It passes messages between ports and the engine, which is in the
// offscreen document; the browser may stop it at any time, and a message starts it again.

import type { Port } from "../chrome";
import { offscreenHome } from "../extension_homes";
import { ExtensionPort } from "../extension_ports";
import { Consents, originOf } from "./consents";
import { readExtensionSettings } from "./extension_storage";

const runtime = chrome!.runtime!;
const consents = new Consents();

runtime.onConnect.addListener((port) => {
  const client = new ExtensionPort(port, openHome);
  port.onMessage.addListener((message) => client.receive(message));
});

runtime.onConnectExternal.addListener((port) => {
  const client = new ExtensionPort(port, openHome, { isForeign: true });
  const allowed = consents.ask(originOf(port));
  port.onMessage.addListener(async (message) => {
    if (await allowed) client.receive(message);
    else client.refuse(message, denial(port));
  });
});

function openHome() {
  return offscreenHome(async () => {
    const { idleMinutes } = await readExtensionSettings();
    const idleMs = idleMinutes > 0 ? 60_000 * idleMinutes : Infinity;
    return runtime.getURL(`offscreen.html?idle=${idleMs}`);
  });
}

function denial(port: Port): string {
  return `the user does not let ${originOf(port)} use this extension's model`;
}
