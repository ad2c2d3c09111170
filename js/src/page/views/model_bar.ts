// The state of the chosen model: not loaded, loading or failed. Hidden once it is ready.

import type { ModelRecord } from "../../client";
import { byId, h, scrollableByKeys } from "../dom";
import { bytes, modelName, replacedText, sentence } from "../format";
import { icon } from "../icons";
import type { ModelSession } from "../model_session";
import { sourceOf } from "../model_source";
import type { ModelState, State } from "../state";
import type { Store } from "../store";
import { t } from "../texts";

type Failed = Extract<ModelState, { phase: "failed" }>;
type Loading = Extract<ModelState, { phase: "loading" }>;

export class ModelBar {
  private readonly bar = byId("model-bar", HTMLDivElement);
  private readonly text = h("span", { class: "model-bar-text" });
  private readonly detail = h("span", { class: "model-bar-detail" });
  private readonly progress = h("progress", { aria: { label: t("loadProgress") } });
  private shown: ModelState | undefined;

  constructor(
    private readonly store: Store<State>,
    private readonly session: ModelSession,
    private readonly chooseModel: () => void,
  ) {
    store.watch(["model", "modelId", "models", "kept", "notKept"], () => this.render());
  }

  private render(): void {
    const model = this.store.get("model");
    const isLoading = model.phase === "loading" && this.shown?.phase === "loading";
    if (model.phase === "none" || (model !== this.shown && !isLoading)) this.rebuild(model);
    this.shown = model;
    if (model.phase === "loading") this.showProgress(model);
  }

  private rebuild(model: ModelState): void {
    this.bar.hidden = model.phase === "ready";
    this.bar.className = `model-bar ${model.phase}`;
    this.bar.replaceChildren(...this.content(model));
  }

  private content(model: ModelState): Node[] {
    switch (model.phase) {
      case "none":
        return this.offer();
      case "asleep":
        return this.asleep();
      case "loading":
        return [
          h("div", { class: "model-bar-row" }, this.text, this.detail),
          actions(button(t("cancel"), "quiet", () => this.session.cancel())),
          this.progress,
        ];
      case "failed":
        return [
          scrollableByKeys(
            h(
              "div",
              { class: "failure", role: "alert" },
              icon("alert"),
              h("p", {}, h("strong", {}, title(model)), sentence(model.error)),
            ),
          ),
          this.choice(model.isStorageFull ? this.unkept() : this.load(t("tryAgain"))),
        ];
      case "replaced":
        return this.replaced(model.by);
      case "ready":
        return [];
    }
  }

  private offer(): Node[] {
    const modelId = this.store.get("modelId");
    if (modelId === "") return [actions(button(t("chooseModel"), "primary", this.chooseModel))];
    const model = this.store.get("models").find((each) => each.model_id === modelId);
    const size = model?.size_bytes ? this.sizeText(model, bytes(model.size_bytes)) : "";
    return [
      h(
        "div",
        { class: "model-bar-row" },
        h("span", { class: "model-bar-text" }, modelName(modelId)),
        h("span", { class: "model-bar-detail" }, size),
      ),
      this.choice(this.load(t("loadModel"))),
    ];
  }

  private sizeText(model: ModelRecord, size: string): string {
    const { kind } = sourceOf(model);
    if (kind === "disk") return t("sizeOnDisk", size);
    if (kind === "package") return t("sizeInPackage", size);
    if (this.store.get("kept").has(model.model_id)) return t("sizeHere", size);
    return t(
      this.store.get("notKept").has("models") ? "sizeToDownload" : "sizeToDownloadOnce",
      size,
    );
  }

  private asleep(): Node[] {
    return [
      h(
        "div",
        { class: "model-bar-row", role: "status" },
        h("span", { class: "model-bar-text" }, t("asleep")),
        h("span", { class: "model-bar-detail" }, t("asleepText")),
      ),
      actions(this.load(t("wake"), "quiet")),
    ];
  }

  private replaced(by: string): Node[] {
    const mine = modelName(this.store.get("modelId"));
    const isHere = this.store.get("models").some((each) => each.model_id === by);
    const other = button(t("useOther"), "quiet", () => this.session.load(by));
    return [
      h(
        "div",
        { class: "model-bar-row", role: "status" },
        h("span", { class: "model-bar-text" }, `${sentence(replacedText(by))}.`),
        h("span", { class: "model-bar-detail" }, t("tabsShareOne", mine)),
      ),
      actions(
        isHere ? other : button(t("otherModel"), "quiet", this.chooseModel),
        this.load(t("loadAgain")),
      ),
    ];
  }

  private showProgress({ text, detail, progress }: Loading): void {
    this.text.textContent = text;
    this.detail.textContent = detail;
    if (progress === null) this.progress.removeAttribute("value");
    else this.progress.value = progress;
  }

  private choice(load: HTMLButtonElement): HTMLElement {
    return actions(button(t("otherModel"), "quiet", this.chooseModel), load);
  }

  private load(text: string, kind: "quiet" | "primary" = "primary"): HTMLButtonElement {
    return button(text, kind, () => this.session.load(this.store.get("modelId")));
  }

  private unkept(): HTMLButtonElement {
    return button(t("runUnkept"), "primary", () => this.session.loadUnkept());
  }
}

function title({ wasReady }: Failed): string {
  return t(wasReady ? "modelStopped" : "modelNotLoaded");
}

function actions(...buttons: HTMLElement[]): HTMLElement {
  return h("div", { class: "model-bar-actions" }, ...buttons);
}

function button(text: string, kind: "quiet" | "primary", click: () => void): HTMLButtonElement {
  return h("button", { class: `button ${kind}`, on: { click } }, text);
}
