// What the extension keeps in chrome.storage.

const IDLE_MINUTES = 10;

/** How long the engine stays in memory unused; 0: for ever. */
export async function idleMs(): Promise<number> {
  const { idleMinutes = IDLE_MINUTES } = await chrome!.storage!.local.get("idleMinutes");
  return Number(idleMinutes) > 0 ? 60_000 * Number(idleMinutes) : Infinity;
}

/** The origins of web pages and extensions that the user lets use the engine. */
export async function allowedOrigins(): Promise<string[]> {
  const { allowedOrigins = [] } = await chrome!.storage!.local.get("allowedOrigins");
  return allowedOrigins as string[];
}

export async function allowOrigin(origin: string): Promise<void> {
  const others = (await allowedOrigins()).filter((each) => each !== origin);
  await chrome!.storage!.local.set({ allowedOrigins: [...others, origin] });
}

/** Those that the user has refused since the browser was started. */
export async function deniedOrigins(): Promise<string[]> {
  const { deniedOrigins = [] } = await chrome!.storage!.session.get("deniedOrigins");
  return deniedOrigins as string[];
}

export async function denyOrigin(origin: string): Promise<void> {
  const all = new Set([...(await deniedOrigins()), origin]);
  await chrome!.storage!.session.set({ deniedOrigins: [...all] });
}
