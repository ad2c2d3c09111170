// One message of the thread and its buttons.

import type { Announcer } from "../announcer";
import { isUnderWay } from "../conversations";
import { h } from "../dom";
import { decimals, sentence } from "../format";
import { icon, type IconName } from "../icons";
import type { Message, Stats } from "../state";
import { StreamingMarkdown } from "../streaming_markdown";
import { codeBlock, copyButton } from "./code_block";

export interface MessageActions {
  regenerate(messageId: string): void;
  edit(messageId: string, text: string): void;
}

export interface MessageView {
  element: HTMLElement;
  update(message: Message): void;
}

export function messageView(
  message: Message,
  actions: MessageActions,
  announcer: Announcer,
): MessageView {
  return message.role === "user"
    ? new UserMessage(message, actions, announcer)
    : new Answer(message, actions, announcer);
}

class UserMessage implements MessageView {
  readonly element = h("article", { class: "message user" });

  constructor(
    private message: Message,
    private readonly actions: MessageActions,
    private readonly announcer: Announcer,
  ) {
    this.show();
  }

  update(message: Message): void {
    this.message = message;
  }

  private show(): void {
    const edit = iconButton("edit", "Edit message", () => this.edit());
    this.element.replaceChildren(
      h("h2", { class: "visually-hidden" }, "You"),
      h("div", { class: "bubble" }, this.message.text),
      h(
        "div",
        { class: "message-actions" },
        copyButton("Copy message", () => this.message.text, this.announcer),
        edit,
      ),
    );
  }

  private edit(): void {
    const field = h("textarea", {
      dir: "auto",
      value: this.message.text,
      aria: { label: "Edit message" },
    });
    const save = () => {
      if (field.value.trim()) this.actions.edit(this.message.id, field.value.trim());
    };
    const leave = () => {
      this.show();
      this.element.querySelector<HTMLElement>(".message-actions button:last-child")?.focus();
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") leave();
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) save();
    });
    const form = h(
      "form",
      { class: "edit", on: { submit: (event) => (event.preventDefault(), save()) } },
      field,
      h(
        "div",
        { class: "edit-actions" },
        h("span", { class: "hint" }, "Later messages will be replaced by a new answer."),
        h("button", { class: "button quiet", type: "button", on: { click: leave } }, "Cancel"),
        h("button", { class: "button primary", type: "submit" }, "Send"),
      ),
    );
    this.element.replaceChildren(form);
    field.focus();
  }
}

const NOTES: Partial<Record<Message["state"], string>> = {
  stopped: "Stopped",
  cut: "Cut off: the answer reached its length limit",
};

class Answer implements MessageView {
  readonly element: HTMLElement;
  private readonly text = h("div", { class: "markdown" });
  private readonly foot = h("div", { class: "message-foot" });
  private readonly reading = h("span", { class: "note" });
  private readonly markdown: StreamingMarkdown;

  constructor(
    private message: Message,
    private readonly actions: MessageActions,
    private readonly announcer: Announcer,
  ) {
    this.markdown = new StreamingMarkdown(this.text, (pre, language) =>
      codeBlock(pre, language, announcer),
    );
    const heading = h("h2", { class: "visually-hidden" }, "Answer");
    this.element = h("article", { class: "message answer" }, heading, this.text, this.foot);
    this.show();
  }

  update(message: Message): void {
    const isStateChanged = message.state !== this.message.state;
    this.message = message;
    if (isStateChanged) this.show();
    else this.markdown.show(message.text);
    this.showReading();
    if (this.element.ariaBusy === "false") this.markdown.flush(); // what ended is there in full
  }

  private show(): void {
    const { text, state } = this.message;
    const isOpen = isUnderWay(this.message);
    this.element.dataset.state = state;
    this.element.ariaBusy = String(isOpen);
    this.markdown.show(text);
    this.foot.replaceChildren(...(isOpen ? [thinking(), this.reading] : this.ended()));
    this.showReading();
  }

  /** How far a long prompt is read, until the answer begins, or goes on in a page opened anew. */
  private showReading(): void {
    const { percentRead, text, isCatchingUp } = this.message;
    if (isCatchingUp) this.reading.textContent = "Picking the answer up again";
    else if (percentRead !== undefined && text === "")
      this.reading.textContent = `Reading the prompt, ${percentRead} %`;
    else this.reading.textContent = "";
  }

  private ended(): HTMLElement[] {
    const { id, text, state, stats, error } = this.message;
    const again = iconButton("again", "Answer again", () => this.actions.regenerate(id));
    const note = NOTES[state];
    const parts = [
      error !== undefined &&
        failure(text === "" ? "No answer. " : "The answer was interrupted. ", error),
      h(
        "div",
        { class: "message-actions" },
        text !== "" && copyButton("Copy answer", () => this.message.text, this.announcer),
        again,
        note !== undefined && h("span", { class: "note" }, note),
        stats !== undefined && h("span", { class: "stats" }, statsText(stats)),
      ),
    ];
    return parts.filter((part) => part !== false);
  }
}

function statsText({ tokens, tokensPerSecond, firstTokenSeconds }: Stats): string {
  const text = `${tokens} tokens · ${decimals(tokensPerSecond, 1)} tokens/s`;
  if (firstTokenSeconds === null) return text;
  return `${text} · first token after ${decimals(firstTokenSeconds, 2)} s`;
}

function thinking(): HTMLElement {
  return h("span", { class: "thinking", role: "img", aria: { label: "Answering" } });
}

function failure(title: string, error: string): HTMLElement {
  return h(
    "div",
    { class: "failure", role: "alert" },
    icon("alert"),
    h("p", {}, h("strong", {}, title), sentence(error)),
  );
}

function iconButton(name: IconName, label: string, click: () => void): HTMLButtonElement {
  return h(
    "button",
    { class: "icon-button", title: label, aria: { label }, on: { click } },
    icon(name),
  );
}
