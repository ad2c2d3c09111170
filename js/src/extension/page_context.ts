// The open page as context of a question. The user turns it on; then the next question of a
// conversation carries the page's text, once.

import type { Tab } from "../chrome";
import { find } from "../page/conversations";
import { byId, h } from "../page/dom";
import { icon } from "../page/icons";
import type { PageText, State } from "../page/state";
import type { Store } from "../page/store";
import { t, type TextKey } from "../page/texts";
import { suggestion } from "../page/views/welcome";
import { keepExtensionSettings, readExtensionSettings } from "./extension_storage";
import { readPage, type ReadPage } from "./read_page";

const READ_MS = 10_000; // after which a page does not answer: it may be busy, or load, for ever
const WEB = /^(https?|file):$/;
const STORES = /^https:\/\/(chromewebstore\.google\.com|chrome\.google\.com\/webstore)([/?#]|$)/;

/** Why a page cannot be read, for people. */
class UnreadablePage extends Error {
  constructor(readonly reason: TextKey) {
    super(t(reason));
  }
}

export class PageContext {
  private readonly chip = byId("page-chip", HTMLButtonElement);
  private readonly row = byId("page-row", HTMLDivElement);
  private readonly note = byId("page-note", HTMLParagraphElement);
  private readonly sumUp: HTMLLIElement;
  private isOn = false;
  private tab: Tab | undefined;
  private reason: TextKey | null = null; // why it cannot be read

  /** tabId: the page's tab if it is not the active one. ask: asks what a suggestion says. */
  constructor(
    private readonly store: Store<State>,
    private readonly tabId: number | null,
    ask: (text: string) => void,
  ) {
    this.sumUp = suggestion(["suggestSumUp", "suggestSumUpRest"], async (text) => {
      if (!this.isOn) await this.toggle();
      ask(text);
    });
    this.chip.addEventListener("click", () => void this.toggle());
    store.watch(["conversations", "currentId"], () => this.show());
  }

  /** Finds out which page it is, and whether it is to be read. */
  async look(): Promise<void> {
    const [settings, tab] = await Promise.all([readExtensionSettings(), this.find()]);
    this.isOn = settings.pageContext;
    this.tab = tab;
    this.reason = this.whyClosed(tab);
    if (this.isOn) await this.probe();
    if (this.reason === null) this.say("");
    this.show();
  }

  /**
   * Returns the page's text for the next question; null if it is off or unreadable, or if the
   * conversation has it. Returns "failed", and says why, if reading failed only now.
   */
  async take(conversationId: string): Promise<PageText | null | "failed"> {
    const tab = await this.find();
    const mayDiffer = this.reason !== null || tab?.url !== this.tab?.url; // it may have been loading
    if (mayDiffer) await this.look();
    else this.tab = tab;
    if (!this.isOn || this.reason !== null || this.has(conversationId)) return null;
    this.say(t("readingPage"));
    try {
      const { url, title, text } = await read(this.tab);
      this.say("");
      return { url, title, text, length: text.length };
    } catch (error) {
      this.say(t("pageUnread", errorText(error)), true);
      return "failed";
    }
  }

  private async toggle(): Promise<void> {
    this.isOn = !this.isOn;
    this.say("");
    await keepExtensionSettings({ pageContext: this.isOn });
    if (this.isOn) await this.probe();
    this.show();
  }

  /** Tries to read the page, so that a page that is closed is shown as such. */
  private async probe(): Promise<void> {
    if (this.reason !== null) return;
    this.say(t("readingPage"));
    try {
      await read(this.tab);
      this.say("");
    } catch (error) {
      this.say(errorText(error), true);
      const isForGood = error instanceof UnreadablePage && error.reason !== "pageBusy";
      if (isForGood) this.reason = error.reason;
    }
  }

  private async find(): Promise<Tab | undefined> {
    const { tabs } = chrome ?? {};
    if (this.tabId !== null) return tabs?.get(this.tabId).catch(() => undefined);
    const [tab] = (await tabs?.query({ active: true, currentWindow: true })) ?? [];
    return tab;
  }

  /** A popup may read the page that it is opened on, unless the browser keeps that closed. */
  private whyClosed(tab: Tab | undefined): TextKey | null {
    const reason = whyClosed(tab);
    return reason === "pageNotAllowed" && this.tabId === null ? "pageBrowser" : reason;
  }

  private has(conversationId: string): boolean {
    const messages = find(this.store.get("conversations"), conversationId)?.messages ?? [];
    const here = withoutFragment(this.tab?.url ?? "");
    return messages.some(({ page }) => page && withoutFragment(page.url) === here);
  }

  private show(): void {
    const { chip, reason } = this;
    const isTaken = this.isOn && reason === null;
    this.row.hidden = this.tab?.url?.startsWith(location.origin) ?? false; // in a tab of its own
    const title = this.tab?.title || this.tab?.url;
    const label = title ? t("thisPageNamed", title) : t("thisPage");
    chip.replaceChildren(icon(isTaken ? "check" : "file"), h("span", { dir: "auto" }, label));
    chip.ariaPressed = String(isTaken);
    chip.disabled = reason !== null;
    chip.title = t(isTaken ? this.hint() : "pageOffHint");
    if (reason !== null) this.say(t(reason));
    if (this.tab === undefined || reason !== null || this.row.hidden) this.sumUp.remove();
    else if (!this.sumUp.isConnected) document.querySelector(".suggestions")?.prepend(this.sumUp);
  }

  private hint(): TextKey {
    return this.has(this.store.get("currentId")) ? "pageInHint" : "pageOnHint";
  }

  private say(text: string, isFailure = false): void {
    this.note.textContent = text;
    this.note.classList.toggle("failed", isFailure);
  }
}

/** What is known about a page before it is read. */
function whyClosed(tab: Tab | undefined): TextKey | null {
  if (tab?.id === undefined) return "pageNone";
  if (tab.url === undefined || tab.url === "") return "pageNotAllowed";
  if (STORES.test(tab.url)) return "pageStore";
  return WEB.test(new URL(tab.url).protocol) ? null : "pageBrowser";
}

/** Throws UnreadablePage. */
async function read(tab: Tab | undefined): Promise<ReadPage> {
  const { scripting } = chrome ?? {};
  const closed = whyClosed(tab);
  if (closed !== null || tab?.id === undefined) throw new UnreadablePage(closed ?? "pageNone");
  const isFile = tab.url?.startsWith("file:");
  const isPdf = /\.pdf($|[?#])/i.test(tab.url ?? "");
  let page: ReadPage | undefined;
  try {
    const target = { tabId: tab.id };
    const reading = scripting?.executeScript({ target, func: readPage });
    page = (await Promise.race([reading, tooLate()]))?.[0]?.result;
  } catch (error) {
    if (error instanceof UnreadablePage) throw error;
    console.info(`the page cannot be read: ${String(error)}`);
    throw new UnreadablePage(isFile ? "pageFile" : isPdf ? "pagePdf" : "pageNotAllowed");
  }
  if (isPdf || page?.contentType === "application/pdf") throw new UnreadablePage("pagePdf");
  if (!page?.text) throw new UnreadablePage("pageEmpty");
  return page;
}

function tooLate(): Promise<never> {
  return new Promise((_, reject) => {
    setTimeout(() => reject(new UnreadablePage("pageBusy")), READ_MS);
  });
}

function errorText(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function withoutFragment(url: string): string {
  return url.split("#")[0] ?? "";
}
