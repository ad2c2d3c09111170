// The extension's background worker. It passes messages between ports and the engine, which is in the
// offscreen document; the browser may stop it at any time, and a message starts it again.

import { fetchCatalogue } from "../catalogue";
import { offscreenHome, tellOffscreen } from "../extension_homes";
import { ExtensionPort } from "../extension_ports";
import { isForeign } from "../foreigners";
import { CONSENT_PORT, Consents } from "./consents";
import { denyOrigin, idleMs, readExtensionSettings } from "./extension_storage";
import { ForeignPorts } from "./foreign_ports";

const runtime = chrome!.runtime!;
const storage = chrome!.storage!;
const consents = new Consents();
const foreigners = new ForeignPorts(consents, catalogueIds, openHome);

runtime.onConnect.addListener((port) => {
  if (port.name.startsWith(CONSENT_PORT) && !isForeign(port)) return consents.listen(port);
  const client = new ExtensionPort(port, openHome);
  port.onMessage.addListener((message) => client.receive(message));
});

runtime.onConnectExternal.addListener((port) => foreigners.add(port));

storage.onChanged.addListener(async ({ allowedOrigins, idleMinutes }) => {
  if (idleMinutes) tellOffscreen({ kind: "idle", idleMs: await idleMs() });
  if (allowedOrigins) await revoke(allowedOrigins.oldValue ?? []);
});

/** Disconnects those whom the user does not allow any more, and does not ask about them again. */
async function revoke(before: string[]): Promise<void> {
  const { allowedOrigins } = await readExtensionSettings();
  const revoked = before.filter((origin) => !allowedOrigins.includes(origin));
  for (const origin of revoked) {
    await denyOrigin(origin);
    foreigners.revoke(origin);
  }
}

/** The models that an origin may use. */
async function catalogueIds(): Promise<ReadonlySet<string>> {
  const catalogue = await fetchCatalogue(new URL(runtime.getURL("")));
  return new Set(catalogue?.model_list.map(({ model_id }) => model_id));
}

function openHome() {
  return offscreenHome(async () => runtime.getURL(`offscreen.html?idle=${await idleMs()}`));
}
