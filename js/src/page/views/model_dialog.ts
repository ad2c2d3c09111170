// The choice of a model: those of the site, and those of WebLLM's list.

import type { ModelRecord } from "../../client";
import { byId, h } from "../dom";
import { errorText, modelName, sentence } from "../format";
import { icon } from "../icons";
import type { KeptModels } from "../kept_models";
import type { ModelSession } from "../model_session";
import { sourceOf } from "../model_source";
import type { State } from "../state";
import type { Store } from "../store";
import { HAS_LOCKS } from "../tabs";
import { t } from "../texts";
import type { Confirm } from "./confirm";
import { ModelList } from "./model_list";
import { modelOption, type Choice } from "./model_option";

export class ModelDialog {
  private readonly dialog = byId("models", HTMLDialogElement);
  private readonly text = h("div");
  private readonly options = h("div", {
    class: "model-list",
    role: "radiogroup",
    aria: { labelledby: "models-title" },
  });
  private readonly list: ModelList | null;
  private readonly loadButton = h("button", { class: "button primary", type: "submit" });
  private chosen = "";
  private listed: ModelRecord | null = null; // the chosen one, if it is none of the site's

  /** Without `fetchListed` only the models of the site are offered. */
  constructor(
    private readonly store: Store<State>,
    private readonly session: ModelSession,
    private readonly kept: KeptModels,
    private readonly confirm: Confirm,
    fetchListed?: () => Promise<ModelRecord[]>,
  ) {
    this.list = fetchListed
      ? new ModelList(store, () => this.choice("listed-model"), fetchListed)
      : null;
    this.dialog.append(
      h("div", { class: "dialog-head" }, h("h2", { id: "models-title" }, t("chooseModel"))),
      this.text,
      h(
        "form",
        { class: "model-form", on: { submit: (event) => this.load(event) } },
        this.options,
        this.list?.element ?? null,
        this.actions(),
      ),
    );
    byId("open-models", HTMLButtonElement).addEventListener("click", () => this.open());
    store.watch(["kept", "device"], () => this.dialog.open && this.build());
    store.watch(["model", "modelId"], () => this.showAction());
    store.watch(["listed"], () => void this.kept.look());
  }

  open(): void {
    this.chosen = this.store.get("modelId");
    this.listed = null;
    this.build();
    this.dialog.showModal();
    this.focusChosen();
    void this.kept.look();
  }

  private build(error?: string): void {
    const hasFocus = this.options.contains(document.activeElement);
    const models = this.store.get("models").filter(isLanguageModel);
    const choice = this.choice("model");
    this.text.replaceChildren(error === undefined ? this.deviceText() : failure(error));
    this.options.replaceChildren(...models.map((each) => modelOption(each, this.store, choice)));
    this.list?.build();
    this.showAction();
    if (hasFocus) this.focusChosen();
  }

  private focusChosen(): void {
    this.options.querySelector<HTMLInputElement>("input:checked")?.focus({ preventScroll: true });
  }

  private choice(group: Choice["group"]): Choice {
    return {
      chosen: this.chosen,
      group,
      choose: (model) => this.choose(model),
      delete: (modelId) => void this.delete(modelId),
    };
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

  private choose(model: ModelRecord): void {
    this.chosen = model.model_id;
    this.listed = this.store.get("models").includes(model) ? null : model;
    for (const radio of this.dialog.querySelectorAll<HTMLInputElement>("input[type=radio]")) {
      radio.checked = radio.value === this.chosen;
    }
    this.showAction();
  }

  private load(event: SubmitEvent): void {
    event.preventDefault();
    this.dialog.close();
    if (this.listed) this.session.loadOther(this.listed);
    else this.session.load(this.chosen);
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
