// The messages of the current conversation. Follows the answer unless the reader scrolls away.

import type { Announcer } from "../announcer";
import type { Answering } from "../answering";
import { find } from "../conversations";
import { byId } from "../dom";
import type { Message, State } from "../state";
import type { Store } from "../store";
import { t } from "../texts";
import { messageView, type MessageView } from "./message";

const NEAR = 80; // pixels

export class Thread {
  private readonly scroller = byId("scroller", HTMLElement);
  private readonly list = byId("thread", HTMLDivElement);
  private readonly toLatest = byId("to-latest", HTMLButtonElement);
  private readonly views = new Map<string, MessageView>();
  private shownId = "";
  private last: Message | undefined;
  private isAtEnd = true;

  constructor(
    private readonly store: Store<State>,
    private readonly answering: Answering,
    private readonly announcer: Announcer,
    private readonly onAsked: () => void,
  ) {
    this.scroller.addEventListener("scroll", () => this.look(), { passive: true });
    this.toLatest.addEventListener("click", () => this.follow());
    const follow = new ResizeObserver(() => (this.isAtEnd ? this.follow() : this.look()));
    follow.observe(this.list);
    follow.observe(this.scroller);
    store.watch(["conversations", "currentId"], () => this.render());
  }

  private render(): void {
    const id = this.store.get("currentId");
    const messages = find(this.store.get("conversations"), id)?.messages ?? [];
    if (id !== this.shownId) this.clear(id);
    const kept = new Set(messages.map((message) => message.id));
    for (const [messageId, view] of this.views) {
      if (kept.has(messageId)) continue;
      view.element.remove();
      this.views.delete(messageId);
    }
    for (const message of messages) this.show(message, id);
    this.announce(messages.at(-1));
  }

  private clear(id: string): void {
    for (const view of this.views.values()) view.element.remove();
    this.views.clear();
    this.shownId = id;
    this.last = undefined;
    this.isAtEnd = true;
  }

  private show(message: Message, conversationId: string): void {
    const known = this.views.get(message.id);
    if (known) return known.update(message);
    const actions = {
      regenerate: (id: string) => {
        this.answering.regenerate(conversationId, id);
        this.onAsked();
      },
      edit: (id: string, text: string) => {
        this.answering.edit(conversationId, id, text);
        this.onAsked();
      },
    };
    const view = messageView(message, actions, this.announcer);
    this.views.set(message.id, view);
    this.list.append(view.element);
    this.isAtEnd = true;
  }

  /** Announces the beginning and the end of the last answer. */
  private announce(message: Message | undefined): void {
    const { last } = this;
    this.last = message;
    if (message?.role !== "assistant" || last?.state === message.state) return;
    if (message.state === "waiting") this.announcer.say(t("answering"));
    else if (last?.id === message.id && message.state !== "streaming") {
      this.announcer.say(message.state === "failed" ? t("noAnswer") : message.text);
    }
  }

  private look(): void {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    this.isAtEnd = scrollHeight - scrollTop - clientHeight < NEAR;
    this.toLatest.hidden = this.isAtEnd;
  }

  private follow(): void {
    this.scroller.scrollTop = this.views.size ? this.scroller.scrollHeight : 0;
    this.look();
  }
}
