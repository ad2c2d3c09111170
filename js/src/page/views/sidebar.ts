// The conversations; on narrow screens a drawer in front of the page.

import { find, isAnswering, newId, title, without } from "../conversations";
import { byId, h } from "../dom";
import { icon } from "../icons";
import type { Conversation, State } from "../state";
import type { Store } from "../store";
import { t } from "../texts";
import type { Confirm } from "./confirm";

const NARROW = "(max-width: 52rem)"; // as in layout.css

export class Sidebar {
  private readonly sidebar = byId("sidebar", HTMLElement);
  private readonly list = byId("conversations", HTMLUListElement);
  private readonly main = byId("main", HTMLDivElement);
  private readonly scrim = byId("scrim", HTMLDivElement);
  private readonly opener = byId("open-sidebar", HTMLButtonElement);

  constructor(
    private readonly store: Store<State>,
    private readonly stop: (conversationId: string) => void,
    private readonly confirm: Confirm,
    private readonly onChosen: () => void,
  ) {
    byId("new-chat", HTMLButtonElement).addEventListener("click", () => this.choose(newId()));
    this.opener.addEventListener("click", () => this.open());
    this.scrim.addEventListener("click", () => this.close());
    byId("close-sidebar", HTMLButtonElement).addEventListener("click", () => this.close());
    this.sidebar.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.preventDefault(); // which would close a popup
      this.close();
    });
    for (const name of ["transitionend", "transitioncancel"] as const)
      this.sidebar.addEventListener(name, () => this.sidebar.classList.remove("sliding"));
    matchMedia(NARROW).addEventListener("change", () => this.show(false));
    store.watch(["conversations", "currentId"], () => this.render());
  }

  close(): void {
    if (this.scrim.hidden) return;
    this.slide(false);
    this.opener.focus();
  }

  private open(): void {
    this.slide(true);
    byId("close-sidebar", HTMLButtonElement).focus();
  }

  /** Slides the drawer in or out. It appears or vanishes at once when the window is resized. */
  private slide(isOpen: boolean): void {
    this.sidebar.classList.add("sliding");
    this.show(isOpen);
  }

  private show(isOpen: boolean): void {
    this.sidebar.classList.toggle("open", isOpen);
    this.scrim.hidden = !isOpen;
    this.main.inert = isOpen;
    this.opener.ariaExpanded = String(isOpen);
  }

  private choose(id: string): void {
    this.store.set("currentId", id);
    this.close();
    this.onChosen();
  }

  /** Rebuilds the list only if it looks different: streaming changes conversations all the time. */
  private render(): void {
    const conversations = this.store.get("conversations");
    const shown = conversations.map((each) => this.shape(each)).join("\n");
    if (shown === this.list.dataset.shown) return;
    this.list.dataset.shown = shown;
    const focused = document.activeElement?.closest("li")?.dataset.id;
    this.list.replaceChildren(...conversations.map((each) => this.item(each)));
    const items = [...this.list.querySelectorAll("li")];
    items
      .find((each) => each.dataset.id === focused)
      ?.querySelector("button")
      ?.focus();
  }

  private shape(conversation: Conversation): string {
    const isCurrent = conversation.id === this.store.get("currentId");
    return `${conversation.id} ${isCurrent} ${isAnswering(conversation)} ${title(conversation)}`;
  }

  private item(conversation: Conversation): HTMLLIElement {
    const isCurrent = conversation.id === this.store.get("currentId");
    const name = title(conversation);
    return h(
      "li",
      { data: { id: conversation.id } },
      h(
        "button",
        {
          class: "conversation",
          title: name,
          aria: isCurrent ? { current: "true" } : {},
          on: { click: () => this.choose(conversation.id) },
        },
        h("span", { class: "conversation-title", dir: "auto" }, name),
        isAnswering(conversation) &&
          h("span", { class: "busy", role: "img", aria: { label: t("answering") } }),
      ),
      h(
        "button",
        {
          class: "icon-button delete",
          aria: { label: t("deleteNamed", name) },
          on: { click: () => void this.delete(conversation.id) },
        },
        icon("trash"),
      ),
    );
  }

  private async delete(id: string): Promise<void> {
    const conversation = find(this.store.get("conversations"), id);
    if (!conversation) return;
    const isMeant = await this.confirm.ask({
      title: t("deleteConversation"),
      text: t("deletedForGood", title(conversation)),
      action: t("delete"),
    });
    if (!isMeant) return;
    this.stop(id);
    this.store.set("conversations", without(this.store.get("conversations"), id));
    if (this.store.get("currentId") === id) this.store.set("currentId", newId());
  }
}
