// The user's consent to each origin that connects from outside of the extension.

import type { Port } from "../chrome";
import {
  keepDeniedOrigins,
  keepExtensionSettings,
  readDeniedOrigins,
  readExtensionSettings,
} from "./extension_storage";

const SIZE = { width: 440, height: 340 };

/** An answer of the window consent.html. */
export interface Answer {
  origin: string;
  isAllowed: boolean;
}

export const CONSENT_CHANNEL = "webllm consent";

export class Consents {
  private readonly asking = new Map<string, Promise<boolean>>(); // by origin

  /** Asks the user at the first time; resolves to whether the origin may use the engine. */
  ask(origin: string): Promise<boolean> {
    let answer = this.asking.get(origin);
    if (!answer) {
      answer = this.decide(origin).finally(() => this.asking.delete(origin));
      this.asking.set(origin, answer);
    }
    return answer;
  }

  private async decide(origin: string): Promise<boolean> {
    if ((await readExtensionSettings()).allowedOrigins.includes(origin)) return true;
    if ((await readDeniedOrigins()).includes(origin)) return false;
    const isAllowed = await askInWindow(origin);
    if (isAllowed) {
      const { allowedOrigins } = await readExtensionSettings();
      await keepExtensionSettings({ allowedOrigins: [...allowedOrigins, origin] });
    } else {
      await keepDeniedOrigins([...(await readDeniedOrigins()), origin]);
    }
    return isAllowed;
  }
}

/** Closing the window is a refusal. */
async function askInWindow(origin: string): Promise<boolean> {
  const windows = chrome!.windows!;
  const channel = new BroadcastChannel(CONSENT_CHANNEL);
  const url = `consent.html?origin=${encodeURIComponent(origin)}`;
  const answer = new Promise<boolean>((resolve) => {
    channel.onmessage = ({ data }) => {
      const { origin: of, isAllowed } = data as Answer;
      if (of === origin) resolve(isAllowed);
    };
  });
  const { id } = await windows.create({ url, type: "popup", focused: true, ...SIZE });
  const closed = new Promise<boolean>((resolve) => {
    windows.onRemoved.addListener((removed) => {
      if (removed === id) resolve(false);
    });
  });
  const isAllowed = await Promise.race([answer, closed]);
  channel.close();
  return isAllowed;
}

/** Who is at the other end of a port from outside: a site or an extension. */
export function originOf({ sender }: Port): string {
  return sender?.origin ?? (sender?.id ? `chrome-extension://${sender.id}` : "unknown");
}
