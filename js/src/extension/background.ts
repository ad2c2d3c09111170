// The extension's background worker. It passes messages between ports and the engine, which is in the
// offscreen document; the browser may stop it at any time, and a message starts it again.

import { fetchCatalogue } from "../catalogue";
import type { Port } from "../chrome";
import { offscreenHome, tellOffscreen } from "../extension_homes";
import { ExtensionPort } from "../extension_ports";
import { CONSENT_PORT, Consents, originOf } from "./consents";
import { idleMs, readExtensionSettings } from "./extension_storage";

const runtime = chrome!.runtime!;
const storage = chrome!.storage!;
const consents = new Consents();
const foreigners = new Map<Port, ExtensionPort>();
let modelIds: Promise<ReadonlySet<string>> | undefined;

runtime.onConnect.addListener((port) => {
  if (port.name.startsWith(CONSENT_PORT)) return consents.listen(port);
  const client = new ExtensionPort(port, openHome);
  port.onMessage.addListener((message) => client.receive(message));
});

runtime.onConnectExternal.addListener((port) => {
  const client = new ExtensionPort(port, openHome);
  const admitted = Promise.all([consents.ask(originOf(port)), catalogueIds()]);
  foreigners.set(port, client);
  port.onDisconnect.addListener(() => foreigners.delete(port));
  port.onMessage.addListener(async (message) => {
    const [isAllowed, ids] = await admitted;
    if (isAllowed) client.receive(message, ids);
    else client.refuse(message, denial(port));
  });
});

storage.onChanged.addListener(async ({ allowedOrigins, idleMinutes }) => {
  if (idleMinutes) tellOffscreen({ kind: "idle", idleMs: await idleMs() });
  if (allowedOrigins) await revoke(allowedOrigins.oldValue ?? []);
});

/** Disconnects those whom the user does not allow any more, and does not ask about them again. */
async function revoke(before: string[]): Promise<void> {
  const { allowedOrigins } = await readExtensionSettings();
  const revoked = before.filter((origin) => !allowedOrigins.includes(origin));
  for (const origin of revoked) await consents.deny(origin);
  for (const [port, client] of foreigners) {
    if (!revoked.includes(originOf(port))) continue;
    foreigners.delete(port);
    client.disconnect();
  }
}

function catalogueIds(): Promise<ReadonlySet<string>> {
  return (modelIds ??= fetchCatalogue(new URL(runtime.getURL(""))).then(
    (catalogue) => new Set(catalogue?.model_list.map(({ model_id }) => model_id)),
  ));
}

function openHome() {
  return offscreenHome(async () => runtime.getURL(`offscreen.html?idle=${await idleMs()}`));
}

function denial(port: Port): string {
  return `the user does not let ${originOf(port)} use this extension's model`;
}
