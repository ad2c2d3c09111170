// Asks for confirmation before something is deleted.

import { byId, h } from "../dom";

export interface Question {
  title: string;
  text: string;
  action: string;
}

export class Confirm {
  private readonly dialog = byId("confirm", HTMLDialogElement);

  ask({ title, text, action }: Question): Promise<boolean> {
    const { dialog } = this;
    const close = (answer: string) => ({ click: () => dialog.close(answer) });
    dialog.replaceChildren(
      h("div", { class: "dialog-head" }, h("h2", { id: "confirm-title" }, title)),
      h("p", { class: "dialog-text" }, text),
      h(
        "div",
        { class: "dialog-actions" },
        h("button", { class: "button quiet", on: close("") }, "Cancel"),
        h("button", { class: "button danger", on: close("yes") }, action),
      ),
    );
    dialog.returnValue = "";
    dialog.showModal();
    return new Promise((resolve) => {
      dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
    });
  }
}
