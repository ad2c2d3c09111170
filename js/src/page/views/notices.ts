// Notices about the whole page, above the message field: what is not saved, and uncaught errors.

import { byId, h, scrollableByKeys } from "../dom";
import { errorText, sentence } from "../format";
import { icon } from "../icons";
import type { Keepable, State } from "../state";
import type { Store } from "../store";
import { t, type TextKey } from "../texts";

type Kind = "not-kept" | "unreadable" | "fault";

const NAMES: Record<Keepable, TextKey> = {
  conversations: "keptConversations",
  settings: "keptSettings",
  models: "keptModels",
};
const ORDER = Object.keys(NAMES) as Keepable[];

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
    const text = t("fault", errorText(error)).replace(/[.!?]\.$/, ".");
    this.dismissed.delete("fault");
    this.say("fault", `${text} ${t("faultAdvice")}`);
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
        h("button", { class: "button quiet", on: { click: () => location.reload() } }, t("reload")),
      h(
        "button",
        { class: "icon-button", aria: { label: t("dismiss") }, on: { click: dismiss } },
        icon("close"),
      ),
    );
  }
}

function notKeptText(notKept: State["notKept"]): string {
  const names = ORDER.filter((name) => notKept.has(name));
  const [first] = names;
  if (first === undefined) return "";
  const list = new Intl.ListFormat(t("language")).format(names.map((name) => t(NAMES[name])));
  const text = sentence(t("areNotSaved", list, notKept.get(first) ?? ""));
  return names.every((name) => name === "models") ? text : `${text} ${t("lastUntilClosed")}`;
}
