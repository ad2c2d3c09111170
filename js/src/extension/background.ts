// The extension's background worker. It passes messages between ports and the engine, which is in the
// offscreen document; the browser may stop it at any time, and a message starts it again.

import { fetchCatalogue } from "../catalogue";
import type { Port } from "../chrome";
import { offscreenHome, tellOffscreen } from "../extension_homes";
import { ExtensionPort } from "../extension_ports";
import { isForeign } from "../foreigners";
import { CONSENT_PORT, Consents, originOf } from "./consents";
import { idleMs, readExtensionSettings } from "./extension_storage";

const runtime = chrome!.runtime!;
const storage = chrome!.storage!;
const consents = new Consents();
const foreigners = new Map<Port, ExtensionPort>();

runtime.onConnect.addListener((port) => {
  if (port.name.startsWith(CONSENT_PORT) && !isForeign(port)) return consents.listen(port);
  const client = new ExtensionPort(port, openHome);
  port.onMessage.addListener((message) => client.receive(message));
});

runtime.onConnectExternal.addListener((port) => {
  const client = new ExtensionPort(port, openHome);
  const admission = admit(originOf(port));
  let isDecided = false;
  const decided = () => (isDecided = true);
  admission.then(decided, decided);
  foreigners.set(port, client);
  port.onDisconnect.addListener(() => foreigners.delete(port));
  port.onMessage.addListener((message) => {
    if (!isDecided) client.delay(message);
    admission.then(
      (ids) => client.receive(message, ids),
      (error: Error) => client.refuse(message, error.message),
    );
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

/** Returns the models that an origin may use; throws if the user lets it use none. */
async function admit(origin: string): Promise<ReadonlySet<string>> {
  if (await consents.ask(origin)) return catalogueIds();
  throw new Error(`the user does not let ${origin} use this extension's model`);
}

async function catalogueIds(): Promise<ReadonlySet<string>> {
  const catalogue = await fetchCatalogue(new URL(runtime.getURL("")));
  return new Set(catalogue?.model_list.map(({ model_id }) => model_id));
}

function openHome() {
  return offscreenHome(async () => runtime.getURL(`offscreen.html?idle=${await idleMs()}`));
}
