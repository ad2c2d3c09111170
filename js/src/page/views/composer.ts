// Where messages are written. Enter sends, except on touch screens; Escape stops the answer.

import type { Answering } from "../answering";
import { find, isAnswering } from "../conversations";
import { byId } from "../dom";
import type { State } from "../state";
import type { Store } from "../store";

export class Composer {
  private readonly form = byId("composer", HTMLFormElement);
  private readonly field = byId("prompt", HTMLTextAreaElement);
  private readonly sendButton = byId("send", HTMLButtonElement);
  private readonly stopButton = byId("stop", HTMLButtonElement);

  constructor(
    private readonly store: Store<State>,
    private readonly answering: Answering,
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
      if (event.key === "Escape" && !isInDialog) this.stop();
    });
    store.watch(["conversations", "currentId"], () => this.look());
  }

  send(text: string): void {
    if (text.trim() === "" || this.isBusy()) return;
    this.answering.send(this.store.get("currentId"), text.trim());
    this.field.value = "";
    this.look();
    this.focus();
  }

  /** Not on touch screens, where it would bring up the keyboard. */
  focus(): void {
    if (!isTouch()) this.field.focus({ preventScroll: true });
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
    return isAnswering(find(this.store.get("conversations"), this.store.get("currentId")));
  }

  private look(): void {
    const isBusy = this.isBusy();
    this.sendButton.hidden = isBusy;
    this.stopButton.hidden = !isBusy;
    this.sendButton.disabled = this.field.value.trim() === "";
  }
}

function isTouch(): boolean {
  return matchMedia("(pointer: coarse)").matches;
}
