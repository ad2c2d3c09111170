// The user's consent to each origin that connects from outside of the extension.

import type { Port } from "../chrome";
import {
  keepDeniedOrigins,
  keepExtensionSettings,
  readDeniedOrigins,
  readExtensionSettings,
} from "./extension_storage";

/** Begins the name of the window's port; the origin follows. */
export const CONSENT_PORT = "consent ";
const SIZE = { width: 480, height: 480 };

export class Consents {
  private readonly asking = new Map<string, Promise<boolean>>(); // by origin
  private readonly answers = new Map<string, (isAllowed: boolean) => void>(); // by origin
  private last: Promise<unknown> = Promise.resolve(); // change of what is kept

  /** Asks the user at the first time; resolves to whether the origin may use the engine. */
  ask(origin: string): Promise<boolean> {
    let answer = this.asking.get(origin);
    if (!answer) {
      answer = this.decide(origin).finally(() => this.asking.delete(origin));
      this.asking.set(origin, answer);
    }
    return answer;
  }

  /** The port of a window that asks, which keeps this worker alive; closing it is a refusal. */
  listen(port: Port): void {
    const answer = this.answers.get(port.name.slice(CONSENT_PORT.length));
    port.onMessage.addListener(({ isAllowed }) => {
      if (typeof isAllowed === "boolean") answer?.(isAllowed);
    });
    port.onDisconnect.addListener(() => answer?.(false));
  }

  /** Refuses an origin until the browser is started again. */
  deny(origin: string): Promise<void> {
    return this.change(async () => {
      const denied = new Set([...(await readDeniedOrigins()), origin]);
      await keepDeniedOrigins([...denied]);
    });
  }

  private async decide(origin: string): Promise<boolean> {
    if (!URL.canParse(origin)) return false; // of a frame without one
    if ((await readExtensionSettings()).allowedOrigins.includes(origin)) return true;
    if ((await readDeniedOrigins()).includes(origin)) return false;
    const isAllowed = await this.askInWindow(origin);
    await (isAllowed ? this.allow(origin) : this.deny(origin));
    return isAllowed;
  }

  private async askInWindow(origin: string): Promise<boolean> {
    const answer = new Promise<boolean>((resolve) => this.answers.set(origin, resolve));
    const url = `consent.html?origin=${encodeURIComponent(origin)}`;
    await chrome!.windows!.create({ url, type: "popup", focused: true, ...SIZE });
    return answer.finally(() => this.answers.delete(origin));
  }

  private allow(origin: string): Promise<void> {
    return this.change(async () => {
      const { allowedOrigins } = await readExtensionSettings();
      await keepExtensionSettings({ allowedOrigins: [...allowedOrigins, origin] });
    });
  }

  /** One after another, since each reads and writes a whole list. */
  private change(act: () => Promise<void>): Promise<void> {
    const changed = this.last.then(act);
    this.last = changed.catch(() => {});
    return changed;
  }
}

/** Who is at the other end of a port from outside: an extension, which names itself, or a site. */
export function originOf({ sender }: Port): string {
  return sender?.id ? `chrome-extension://${sender.id}` : (sender?.origin ?? "");
}
