// Where messages are written. Enter sends, except on touch screens; Escape stops the answer.

import type { Answering } from "../answering";
import { find, isAnswering } from "../conversations";
import { byId } from "../dom";
import type { PageText, State } from "../state";
import type { Store } from "../store";

/** What goes with a question; null if the question is not to be sent. */
export type Prepare = (conversationId: string) => Promise<{ page: PageText | null } | null>;

export class Composer {
  private readonly form = byId("composer", HTMLFormElement);
  private readonly field = byId("prompt", HTMLTextAreaElement);
  private readonly sendButton = byId("send", HTMLButtonElement);
  private readonly stopButton = byId("stop", HTMLButtonElement);
  private isPreparing = false;

  constructor(
    private readonly store: Store<State>,
    private readonly answering: Answering,
    private readonly prepare?: Prepare,
  ) {
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send(this.field.value);
    });
    this.field.addEventListener("input", () => this.look());
    this.field.addEventListener("keydown", (event) => this.onKey(event));
    this.stopButton.addEventListener("click", () => this.stop());
    document.addEventListener("keydown", (event) => {
      const isInDialog = event.target instanceof Element && event.target.closest("dialog, .edit");
      if (event.key !== "Escape" || isInDialog || !this.isBusy()) return;
      event.preventDefault(); // which would close a popup
      this.stop();
    });
    store.watch(["conversations", "currentId"], () => this.look());
  }

  send(text: string): void {
    if (text.trim() === "" || this.isBusy()) return;
    if (this.prepare) void this.sendPrepared(text.trim(), this.prepare);
    else this.ask(text.trim(), null);
  }

  /** Not on touch screens, where it would bring up the keyboard. */
  focus(): void {
    if (!isTouch()) this.field.focus({ preventScroll: true });
  }

  private async sendPrepared(text: string, prepare: Prepare): Promise<void> {
    const id = this.store.get("currentId");
    this.isPreparing = true;
    this.look();
    try {
      const prepared = await prepare(id);
      this.isPreparing = false;
      if (prepared && this.store.get("currentId") === id) this.ask(text, prepared.page);
    } finally {
      this.isPreparing = false;
      this.look();
    }
  }

  private ask(text: string, page: PageText | null): void {
    this.answering.send(this.store.get("currentId"), text, page);
    this.field.value = "";
    this.field.dispatchEvent(new Event("input"));
    this.focus();
  }

  private stop(): void {
    if (!this.isBusy()) return;
    this.answering.stop(this.store.get("currentId"));
    this.focus();
  }

  private onKey(event: KeyboardEvent): void {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || isTouch()) return;
    event.preventDefault();
    this.send(this.field.value);
  }

  private isBusy(): boolean {
    const conversation = find(this.store.get("conversations"), this.store.get("currentId"));
    return this.isPreparing || isAnswering(conversation);
  }

  private look(): void {
    const isBusy = this.isBusy() && !this.isPreparing;
    this.sendButton.hidden = isBusy;
    this.stopButton.hidden = !isBusy;
    this.sendButton.disabled = this.isPreparing || this.field.value.trim() === "";
  }
}

function isTouch(): boolean {
  return matchMedia("(pointer: coarse)").matches;
}
