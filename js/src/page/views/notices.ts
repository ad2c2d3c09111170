// Notices about the whole page, above the message field: what is not saved, and uncaught errors.

import { byId, h, scrollableByKeys } from "../dom";
import { errorText, sentence } from "../format";
import { icon } from "../icons";
import type { Keepable, State } from "../state";
import type { Store } from "../store";

type Kind = "not-kept" | "unreadable" | "fault";

const LIST = new Intl.ListFormat("en");
const ORDER: Keepable[] = ["conversations", "settings", "models"];

export class Notices {
  private readonly list = byId("notices", HTMLDivElement);
  private readonly shown = new Map<Kind, HTMLElement>();
  private readonly dismissed = new Set<Kind>();

  watch(store: Store<State>): void {
    store.watch(["notKept"], () => this.say("not-kept", notKeptText(store.get("notKept"))));
    store.watch(["unreadable"], () => this.say("unreadable", store.get("unreadable")));
  }

  /** Shows uncaught errors with a button that reloads the page. The console shows them too. */
  watchFaults(): void {
    addEventListener("unhandledrejection", ({ reason }) => this.fault(reason));
    addEventListener("error", ({ error }) => {
      if (error) this.fault(error); // without one, the browser's own notice
    });
  }

  fault(error: unknown): void {
    const text = `Something went wrong in this page: ${errorText(error)}.`.replace(/[.!?]\.$/, ".");
    this.dismissed.delete("fault");
    this.say("fault", `${text} Reload the page if it stops working.`);
  }

  /** Shows one notice of a kind; "" removes it. */
  private say(kind: Kind, text: string): void {
    this.shown.get(kind)?.remove();
    this.shown.delete(kind);
    if (text === "" || this.dismissed.has(kind)) return;
    const notice = this.notice(kind, text);
    this.shown.set(kind, notice);
    this.list.append(notice);
  }

  private notice(kind: Kind, text: string): HTMLElement {
    const isFault = kind === "fault";
    const dismiss = () => {
      this.dismissed.add(kind);
      this.say(kind, "");
    };
    return h(
      "div",
      { class: isFault ? "page-notice fault" : "page-notice", role: isFault ? "alert" : "status" },
      isFault && icon("alert"),
      scrollableByKeys(h("p", {}, sentence(text))),
      isFault &&
        h("button", { class: "button quiet", on: { click: () => location.reload() } }, "Reload"),
      h(
        "button",
        { class: "icon-button", aria: { label: "Dismiss" }, on: { click: dismiss } },
        icon("close"),
      ),
    );
  }
}

function notKeptText(notKept: State["notKept"]): string {
  const names = ORDER.filter((name) => notKept.has(name));
  const [first] = names;
  if (first === undefined) return "";
  const until =
    names.includes("models") && names.length === 1 ? "" : " They last until you close this tab.";
  return `${sentence(LIST.format(names))} are not saved: ${notKept.get(first)}.${until}`;
}
