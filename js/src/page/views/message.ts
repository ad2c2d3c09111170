// One message of the thread and its buttons.

import type { Announcer } from "../announcer";
import { isUnderWay } from "../conversations";
import { h } from "../dom";
import { decimals, sentence } from "../format";
import { icon, type IconName } from "../icons";
import { percentOf } from "../page_text";
import type { Message, PageText, Stats } from "../state";
import { StreamingMarkdown } from "../streaming_markdown";
import { t, type TextKey } from "../texts";
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
  private readonly pageNote = h("span", { class: "page-card-note" });

  constructor(
    private message: Message,
    private readonly actions: MessageActions,
    private readonly announcer: Announcer,
  ) {
    this.show();
  }

  update(message: Message): void {
    this.message = message;
    if (message.page) this.pageNote.textContent = pageNote(message.page);
  }

  private show(): void {
    const edit = iconButton("edit", t("editMessage"), () => this.edit());
    const parts = [
      h("h2", { class: "visually-hidden" }, t("you")),
      this.message.page ? this.pageCard(this.message.page) : null,
      h("div", { class: "bubble" }, this.message.text),
      h(
        "div",
        { class: "message-actions" },
        copyButton(t("copyMessage"), () => this.message.text, this.announcer),
        edit,
      ),
    ];
    this.element.replaceChildren(...parts.filter((part) => part !== null));
  }

  private pageCard(page: PageText): HTMLElement {
    this.pageNote.textContent = pageNote(page);
    return h(
      "div",
      { class: "page-card", title: page.url },
      icon("file"),
      h(
        "div",
        { class: "page-card-text" },
        h("span", { class: "page-card-title", dir: "auto" }, page.title || page.url),
        this.pageNote,
      ),
    );
  }

  private edit(): void {
    const field = h("textarea", {
      dir: "auto",
      value: this.message.text,
      aria: { label: t("editMessage") },
    });
    const save = () => {
      if (field.value.trim()) this.actions.edit(this.message.id, field.value.trim());
    };
    const leave = () => {
      this.show();
      this.element.querySelector<HTMLElement>(".message-actions button:last-child")?.focus();
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.preventDefault(); // which would close a popup
        leave();
      }
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) save();
    });
    const form = h(
      "form",
      { class: "edit", on: { submit: (event) => (event.preventDefault(), save()) } },
      field,
      h(
        "div",
        { class: "edit-actions" },
        h("span", { class: "hint" }, t("laterReplaced")),
        h("button", { class: "button quiet", type: "button", on: { click: leave } }, t("cancel")),
        h("button", { class: "button primary", type: "submit" }, t("send")),
      ),
    );
    this.element.replaceChildren(form);
    field.focus();
  }
}

const NOTES: Partial<Record<Message["state"], TextKey>> = { stopped: "stopped", cut: "cutOff" };

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
    const heading = h("h2", { class: "visually-hidden" }, t("answer"));
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
    if (isCatchingUp) this.reading.textContent = t("catchingUp");
    else if (percentRead !== undefined && text === "")
      this.reading.textContent = t("readingPrompt", percentRead);
    else this.reading.textContent = "";
  }

  private ended(): HTMLElement[] {
    const { id, text, state, stats, error } = this.message;
    const again = iconButton("again", t("answerAgain"), () => this.actions.regenerate(id));
    const note = NOTES[state];
    const parts = [
      error !== undefined &&
        failure(text === "" ? t("noAnswerFailure") : t("interruptedFailure"), error),
      h(
        "div",
        { class: "message-actions" },
        text !== "" && copyButton(t("copyAnswer"), () => this.message.text, this.announcer),
        again,
        note !== undefined && h("span", { class: "note" }, t(note)),
        stats !== undefined && h("span", { class: "stats" }, statsText(stats)),
      ),
    ];
    return parts.filter((part) => part !== false);
  }
}

function pageNote(page: PageText): string {
  const percent = percentOf(page);
  return percent === 100 ? t("pageWhole") : t("pagePartWhy", percent);
}

function statsText({ tokens, tokensPerSecond, firstTokenSeconds }: Stats): string {
  const text = t("stats", tokens, decimals(tokensPerSecond, 1));
  if (firstTokenSeconds === null) return text;
  return t("statsFirst", text, decimals(firstTokenSeconds, 2));
}

function thinking(): HTMLElement {
  return h("span", { class: "thinking", role: "img", aria: { label: t("answering") } });
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
