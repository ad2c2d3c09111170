// Asks before something is deleted or downloaded.

import { byId, h } from "../dom";
import { t } from "../texts";

export interface Question {
  title: string;
  text: string;
  action: string;
  isDanger?: boolean; // default: true
}

export class Confirm {
  private readonly dialog = byId("confirm", HTMLDialogElement);

  ask({ title, text, action, isDanger = true }: Question): Promise<boolean> {
    const { dialog } = this;
    const close = (answer: string) => ({ click: () => dialog.close(answer) });
    dialog.replaceChildren(
      h("div", { class: "dialog-head" }, h("h2", { id: "confirm-title" }, title)),
      h("p", { class: "dialog-text" }, text),
      h(
        "div",
        { class: "dialog-actions" },
        h("button", { class: "button quiet", on: close("") }, t("cancel")),
        h(
          "button",
          { class: `button ${isDanger ? "danger" : "primary"}`, on: close("yes") },
          action,
        ),
      ),
    );
    dialog.returnValue = "";
    dialog.showModal();
    return new Promise((resolve) => {
      dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
    });
  }
}
