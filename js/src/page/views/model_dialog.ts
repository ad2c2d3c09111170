// The choice of a model: what each one weighs, and whether it fits this device.

import type { ModelRecord } from "../../client";
import { byId, h } from "../dom";
import { fit } from "../fit";
import { bytes, modelName } from "../format";
import { icon } from "../icons";
import type { ModelSession } from "../model_session";
import type { State } from "../state";
import type { Store } from "../store";

export class ModelDialog {
  private readonly dialog = byId("models", HTMLDialogElement);

  constructor(
    private readonly store: Store<State>,
    private readonly session: ModelSession,
  ) {
    byId("open-models", HTMLButtonElement).addEventListener("click", () => this.open());
  }

  open(): void {
    const models = this.store.get("models").filter(isLanguageModel);
    const form = h(
      "form",
      { class: "model-form", on: { submit: (event) => this.load(event) } },
      h(
        "div",
        { class: "model-list", role: "radiogroup", aria: { labelledby: "models-title" } },
        ...models.map((each) => this.option(each)),
      ),
      h(
        "div",
        { class: "dialog-actions" },
        h(
          "button",
          { class: "button quiet", type: "button", on: { click: () => this.close() } },
          "Cancel",
        ),
        h("button", { class: "button primary", type: "submit" }, "Load model"),
      ),
    );
    this.dialog.replaceChildren(
      h("div", { class: "dialog-head" }, h("h2", { id: "models-title" }, "Choose a model")),
      this.deviceText(),
      form,
    );
    this.dialog.showModal();
  }

  private close(): void {
    this.dialog.close();
  }

  private load(event: SubmitEvent): void {
    event.preventDefault();
    const chosen = new FormData(event.target as HTMLFormElement).get("model");
    this.close();
    if (typeof chosen === "string") this.session.load(chosen);
  }

  private deviceText(): HTMLElement {
    const device = this.store.get("device");
    if (device === null || device.gpu) {
      return h(
        "p",
        { class: "dialog-text" },
        "Models are downloaded once and stay in this browser.",
      );
    }
    return h(
      "p",
      { class: "dialog-text notice" },
      icon("chip"),
      h("span", {}, `Models run on the CPU here, more slowly: ${device.noGpuBecause}.`),
    );
  }

  private option(model: ModelRecord): HTMLLabelElement {
    const device = this.store.get("device");
    const fits = device && fit(model, device);
    const checked = model.model_id === this.store.get("modelId");
    const radio = h("input", { type: "radio", name: "model", value: model.model_id, checked });
    return h(
      "label",
      { class: "model-option" },
      radio,
      h(
        "span",
        { class: "model-option-text" },
        h("span", { class: "model-option-name" }, modelName(model.model_id)),
        h("span", { class: "model-option-detail" }, sizes(model)),
      ),
      fits && h("span", { class: fits.fits ? "fit yes" : "fit no" }, fits.text),
    );
  }
}

function isLanguageModel({ model_type: type }: ModelRecord): boolean {
  return type !== "embedding" && type !== 1;
}

function sizes({ size_bytes: size, vram_required_MB: memory }: ModelRecord): string {
  const parts = [
    size && `${bytes(size)} to download`,
    memory && `${bytes(memory * 1e6)} of memory`,
  ];
  return parts.filter(Boolean).join(" · ") || "Size not known";
}
