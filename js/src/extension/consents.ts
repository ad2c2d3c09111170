// The user's consent to each origin that connects from outside of the extension.

import type { Port } from "../chrome";
import {
  allowOrigin,
  denyOrigin,
  readDeniedOrigins,
  readExtensionSettings,
} from "./extension_storage";

/** Begins the name of the window's port; the origin follows. */
export const CONSENT_PORT = "consent ";
const SIZE = { width: 480, height: 480 };

export class Consents {
  private readonly asking = new Map<string, Promise<boolean>>(); // by origin
  private readonly answers = new Map<string, (isAllowed: boolean) => void>(); // by origin
  private lastWindow: Promise<unknown> = Promise.resolve();

  /**
   * Asks the user at the first time; resolves to whether the origin may use the engine. Asks about one
   * origin after another, and about none that is not connected any more when its turn comes.
   */
  ask(origin: string, isConnected: () => boolean): Promise<boolean> {
    let answer = this.asking.get(origin);
    if (!answer) {
      answer = this.decide(origin, isConnected).finally(() => this.asking.delete(origin));
      this.asking.set(origin, answer);
    }
    return answer;
  }

  /**
   * The port of a window that asks, which keeps this worker alive; closing it is a refusal. A window
   * that an earlier worker has opened asks in vain: the page has lost that worker, and asks anew.
   */
  listen(port: Port): void {
    const answer = this.answers.get(port.name.slice(CONSENT_PORT.length));
    if (!answer) return port.disconnect();
    port.onMessage.addListener(({ isAllowed }) => {
      if (typeof isAllowed === "boolean") answer(isAllowed);
    });
    port.onDisconnect.addListener(() => answer(false));
  }

  private async decide(origin: string, isConnected: () => boolean): Promise<boolean> {
    if (!URL.canParse(origin)) return false; // of a frame without one
    if ((await readExtensionSettings()).allowedOrigins.includes(origin)) return true;
    if ((await readDeniedOrigins()).includes(origin)) return false;
    const turn = this.lastWindow;
    const asked = turn.then(() => (isConnected() ? this.askInWindow(origin) : null));
    this.lastWindow = asked.catch(() => {});
    const isAllowed = await asked;
    if (isAllowed === null) return false;
    await (isAllowed ? allowOrigin(origin) : denyOrigin(origin));
    return isAllowed;
  }

  private async askInWindow(origin: string): Promise<boolean> {
    const windows = chrome!.windows!;
    const answer = new Promise<boolean>((resolve) => this.answers.set(origin, resolve));
    const url = `consent.html?origin=${encodeURIComponent(origin)}`;
    const opening = windows.create({ url, type: "popup", focused: true, ...SIZE });
    // It may be closed before its script has opened a port.
    const onRemoved = async (id: number) => {
      const { id: own } = await opening.catch(() => ({ id: undefined }));
      if (id === own) this.answers.get(origin)?.(false);
    };
    windows.onRemoved.addListener(onRemoved);
    try {
      await opening;
      return await answer;
    } finally {
      windows.onRemoved.removeListener(onRemoved);
      this.answers.delete(origin);
    }
  }
}

/** Who is at the other end of a port from outside: an extension, which names itself, or a site. */
export function originOf({ sender }: Port): string {
  return sender?.id ? `chrome-extension://${sender.id}` : (sender?.origin ?? "");
}
