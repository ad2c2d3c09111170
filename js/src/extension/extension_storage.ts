// What the extension keeps in chrome.storage.

export const DEFAULT_IDLE_MINUTES = 10;
export const MAX_IDLE_MINUTES = 24 * 60;

export interface ExtensionSettings {
  idleMinutes: number; // until the engine sleeps; 0: never
  allowedOrigins: string[]; // of websites that may use the engine
  pageContext: boolean; // whether questions carry the text of the open page
}

/** Saved settings, with defaults for what is missing or damaged. */
export async function readExtensionSettings(): Promise<ExtensionSettings> {
  const names = ["idleMinutes", "allowedOrigins", "pageContext"];
  const { idleMinutes, allowedOrigins, pageContext } = (await areas().local.get(names)) ?? {};
  const isMinutes = typeof idleMinutes === "number" && idleMinutes >= 0;
  const origins: unknown[] = Array.isArray(allowedOrigins) ? allowedOrigins : [];
  return {
    idleMinutes: isMinutes ? Math.min(idleMinutes, MAX_IDLE_MINUTES) : DEFAULT_IDLE_MINUTES,
    allowedOrigins: origins.filter((each) => typeof each === "string"),
    pageContext: pageContext === true,
  };
}

/** How long the engine stays in memory unused, in milliseconds; Infinity: for ever. */
export async function idleMs(): Promise<number> {
  const { idleMinutes } = await readExtensionSettings();
  return idleMinutes > 0 ? 60_000 * idleMinutes : Infinity;
}

export async function keepExtensionSettings(changes: Partial<ExtensionSettings>): Promise<void> {
  await areas().local.set(changes);
}

/** The origins that the user has refused since the browser was started. */
export async function readDeniedOrigins(): Promise<string[]> {
  const { deniedOrigins } = await areas().session.get(["deniedOrigins"]);
  return Array.isArray(deniedOrigins) ? deniedOrigins : [];
}

/** Lets an origin use the engine from now on. */
export function allowOrigin(origin: string): Promise<void> {
  return inTurn(async () => {
    const { allowedOrigins } = await readExtensionSettings();
    await keepExtensionSettings({ allowedOrigins: [...new Set([...allowedOrigins, origin])] });
  });
}

/** Takes an origin off the list of those that may use the engine. */
export function revokeOrigin(origin: string): Promise<void> {
  return inTurn(async () => {
    const { allowedOrigins } = await readExtensionSettings();
    await keepExtensionSettings({
      allowedOrigins: allowedOrigins.filter((each) => each !== origin),
    });
  });
}

/** Refuses an origin until the browser is started again. */
export function denyOrigin(origin: string): Promise<void> {
  return inTurn(async () => {
    const deniedOrigins = [...new Set([...(await readDeniedOrigins()), origin])];
    await areas().session.set({ deniedOrigins });
  });
}

/** The next time that the origin connects, the user is asked again. */
export function forgetDenial(origin: string): Promise<void> {
  return inTurn(async () => {
    const deniedOrigins = await readDeniedOrigins();
    await areas().session.set({ deniedOrigins: deniedOrigins.filter((each) => each !== origin) });
  });
}

/** Changes a whole list, of which pages and the background worker would else undo another's change. */
function inTurn(change: () => Promise<void>): Promise<void> {
  return navigator.locks.request("webllm extension settings", change);
}

function areas() {
  const { storage } = chrome ?? {};
  if (!storage) throw new Error('the manifest lacks the permission "storage"');
  return storage;
}
