// What concerns the whole page, in lines above the message field: quietly what is not kept, and
// what went wrong where nobody caught it. The messages stay as they are.

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

  /** Shows what nobody caught, with a way out. The console has it, too. */
  watchFaults(): void {
    addEventListener("unhandledrejection", ({ reason }) => this.fault(reason));
    addEventListener("error", ({ error }) => {
      if (error) this.fault(error); // without one: a notice of the browser’s own, not of this page
    });
  }

  fault(error: unknown): void {
    const text = `Something went wrong in this page: ${errorText(error)}.`.replace(/[.!?]\.$/, ".");
    this.dismissed.delete("fault");
    this.say("fault", `${text} Reload it if it does not go on.`);
  }

  /** "": nothing, any more. */
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
    names.includes("models") && names.length === 1 ? "" : " They last as long as this tab.";
  return `${sentence(LIST.format(names))} are not kept: ${notKept.get(first)}.${until}`;
}
