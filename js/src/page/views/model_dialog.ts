// The choice of a model: size, whether it fits this device, and whether it is stored.

import type { ModelRecord } from "../../client";
import { byId, h } from "../dom";
import { fit } from "../fit";
import { bytes, errorText, modelName, sentence } from "../format";
import { icon } from "../icons";
import type { KeptModels } from "../kept_models";
import type { ModelSession } from "../model_session";
import { sourceOf } from "../model_source";
import type { State } from "../state";
import type { Store } from "../store";
import { HAS_LOCKS } from "../tabs";
import { t } from "../texts";
import type { Confirm } from "./confirm";

const WHERE = {
  browser: "sizeHere",
  disk: "sizeOnDisk",
  network: "sizeToDownload",
  package: "sizeInPackage",
} as const;

export class ModelDialog {
  private readonly dialog = byId("models", HTMLDialogElement);
  private readonly loadButton = h("button", { class: "button primary", type: "submit" });
  private chosen = "";

  constructor(
    private readonly store: Store<State>,
    private readonly session: ModelSession,
    private readonly kept: KeptModels,
    private readonly confirm: Confirm,
  ) {
    byId("open-models", HTMLButtonElement).addEventListener("click", () => this.open());
    store.watch(["kept", "device"], () => this.dialog.open && this.build());
    store.watch(["model", "modelId"], () => this.showAction());
  }

  open(): void {
    this.chosen = this.store.get("modelId");
    this.build();
    this.dialog.showModal();
    void this.kept.look();
  }

  private build(error?: string): void {
    const { scrollTop } = this.dialog;
    const models = this.store.get("models").filter(isLanguageModel);
    this.dialog.replaceChildren(
      h("div", { class: "dialog-head" }, h("h2", { id: "models-title" }, t("chooseModel"))),
      error === undefined ? this.deviceText() : failure(error),
      h(
        "form",
        { class: "model-form", on: { submit: (event) => this.load(event) } },
        h(
          "div",
          { class: "model-list", role: "radiogroup", aria: { labelledby: "models-title" } },
          ...models.map((each) => this.option(each)),
        ),
        this.actions(),
      ),
    );
    this.showAction();
    this.dialog.querySelector<HTMLInputElement>("input:checked")?.focus({ preventScroll: true });
    this.dialog.scrollTop = scrollTop;
  }

  private actions(): HTMLElement {
    const file = h("input", { type: "file", hidden: true });
    file.multiple = true; // the files of one model
    file.accept = ".gguf,.safetensors,.json,.bin,.model,.jinja";
    file.addEventListener("change", () => void this.loadFiles([...(file.files ?? [])]));
    const pick = { class: "button quiet from-disk", type: "button" };
    const cancel = { class: "button quiet", type: "button" };
    return h(
      "div",
      { class: "dialog-actions" },
      file,
      h("button", { ...pick, on: { click: () => file.click() } }, icon("file"), t("openFile")),
      h("button", { ...cancel, on: { click: () => this.dialog.close() } }, t("cancel")),
      this.loadButton,
    );
  }

  /** A model that is ready is not loaded again. */
  private showAction(): void {
    const isReady = this.store.get("model").phase === "ready";
    const isLoaded = isReady && this.chosen === this.store.get("modelId");
    this.loadButton.disabled = isLoaded;
    this.loadButton.textContent = t(isLoaded ? "loaded" : "loadModel");
  }

  private choose(modelId: string): void {
    this.chosen = modelId;
    this.showAction();
  }

  private load(event: SubmitEvent): void {
    event.preventDefault();
    this.dialog.close();
    this.session.load(this.chosen);
  }

  private async loadFiles(files: File[]): Promise<void> {
    if (files.length === 0) return;
    try {
      await this.session.loadFiles(files);
      this.dialog.close();
    } catch (error) {
      this.build(errorText(error));
    }
  }

  private deviceText(): HTMLElement {
    const device = this.store.get("device");
    if (device === null || device.gpu) {
      return h("p", { class: "dialog-text" }, this.downloadText());
    }
    return h(
      "p",
      { class: "dialog-text notice" },
      icon("chip"),
      h("span", {}, `${t("runsOnCpuHere", device.noGpuReason)}${sharing()}`),
    );
  }

  private downloadText(): string {
    const models = this.store.get("models");
    if (!models.some((each) => sourceOf(each).kind === "network")) return sharing();
    const isKept = !this.store.get("notKept").has("models");
    return isKept ? `${t("downloadedOnce")}${sharing()}` : t("downloadedAgain");
  }

  private option(model: ModelRecord): HTMLElement {
    const { model_id: id } = model;
    const device = this.store.get("device");
    const isKept = this.store.get("kept").has(id);
    const fits = device && fit(model, device, isKept);
    const on = { change: () => this.choose(id) };
    const radio = h("input", {
      type: "radio",
      name: "model",
      value: id,
      checked: id === this.chosen,
      on,
    });
    const label = h(
      "label",
      {},
      radio,
      h(
        "span",
        { class: "model-option-text" },
        h("span", { class: "model-option-name" }, modelName(id)),
        h("span", { class: "model-option-detail" }, sizes(model, isKept)),
      ),
      fits && h("span", { class: fits.fits ? "fit yes" : "fit no" }, fits.text),
    );
    return h("div", { class: "model-option" }, label, isKept && this.deletion(id));
  }

  private deletion(modelId: string): HTMLButtonElement {
    const label = t("deleteModel", modelName(modelId));
    const click = () => void this.delete(modelId);
    const properties = { class: "icon-button", type: "button", title: label, aria: { label } };
    return h("button", { ...properties, on: { click } }, icon("trash"));
  }

  private async delete(modelId: string): Promise<void> {
    const isMeant = await this.confirm.ask({
      title: t("deleteModelTitle"),
      text: t("deleteModelText", modelName(modelId)),
      action: t("delete"),
    });
    if (!isMeant) return;
    await this.kept.delete(modelId).catch((error: unknown) => this.build(errorText(error)));
  }
}

function failure(error: string): HTMLElement {
  return h("div", { class: "failure", role: "alert" }, icon("alert"), h("p", {}, sentence(error)));
}

function sharing(): string {
  return HAS_LOCKS ? ` ${t("tabsShare")}` : "";
}

function isLanguageModel({ model_type: type }: ModelRecord): boolean {
  return type !== "embedding" && type !== 1;
}

function sizes(model: ModelRecord, isKept: boolean): string {
  const { size_bytes: size, vram_required_MB: memory } = model;
  const parts = [
    size && t(WHERE[isKept ? "browser" : sourceOf(model).kind], bytes(size)),
    memory && t("sizeMemory", bytes(memory * 1e6)),
  ];
  return parts.filter(Boolean).join(" · ") || t("sizeUnknown");
}
