// The state of the chosen model: not loaded, loading or failed. Hidden once it is ready.

import { byId, h, scrollableByKeys } from "../dom";
import { bytes, modelName, replacedText, sentence } from "../format";
import { icon } from "../icons";
import type { ModelSession } from "../model_session";
import type { ModelState, State } from "../state";
import type { Store } from "../store";

type Failed = Extract<ModelState, { phase: "failed" }>;
type Loading = Extract<ModelState, { phase: "loading" }>;

export class ModelBar {
  private readonly bar = byId("model-bar", HTMLDivElement);
  private readonly text = h("span", { class: "model-bar-text" });
  private readonly detail = h("span", { class: "model-bar-detail" });
  private readonly progress = h("progress", { aria: { label: "Load progress" } });
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
      case "loading":
        return [
          h("div", { class: "model-bar-row" }, this.text, this.detail),
          actions(button("Cancel", "quiet", () => this.session.cancel())),
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
          this.choice(model.isStorageFull ? this.unkept() : this.load("Try again")),
        ];
      case "replaced":
        return this.replaced(model.by);
      case "ready":
        return [];
    }
  }

  private offer(): Node[] {
    const modelId = this.store.get("modelId");
    if (modelId === "") return [actions(button("Choose a model", "primary", this.chooseModel))];
    const model = this.store.get("models").find((each) => each.model_id === modelId);
    const isKept = this.store.get("kept").has(modelId);
    const download = this.store.get("notKept").has("models") ? "to download" : "to download once";
    const where = isKept ? "in this browser" : download;
    const size = model?.size_bytes ? `${bytes(model.size_bytes)} ${where}` : "";
    return [
      h(
        "div",
        { class: "model-bar-row" },
        h("span", { class: "model-bar-text" }, modelName(modelId)),
        h("span", { class: "model-bar-detail" }, size),
      ),
      this.choice(this.load("Load model")),
    ];
  }

  private replaced(by: string): Node[] {
    const mine = modelName(this.store.get("modelId"));
    const isHere = this.store.get("models").some((each) => each.model_id === by);
    const other = button("Use the other", "quiet", () => this.session.load(by));
    return [
      h(
        "div",
        { class: "model-bar-row", role: "status" },
        h("span", { class: "model-bar-text" }, `${sentence(replacedText(by))}.`),
        h(
          "span",
          { class: "model-bar-detail" },
          `Tabs share one model, so ${mine} is no longer loaded.`,
        ),
      ),
      actions(
        isHere ? other : button("Other model", "quiet", this.chooseModel),
        this.load("Load again"),
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
    return actions(button("Other model", "quiet", this.chooseModel), load);
  }

  private load(text: string): HTMLButtonElement {
    return button(text, "primary", () => this.session.load(this.store.get("modelId")));
  }

  private unkept(): HTMLButtonElement {
    return button("Run without saving it", "primary", () => this.session.loadUnkept());
  }
}

function title({ wasReady }: Failed): string {
  return wasReady ? "The model has stopped. " : "The model could not be loaded. ";
}

function actions(...buttons: HTMLElement[]): HTMLElement {
  return h("div", { class: "model-bar-actions" }, ...buttons);
}

function button(text: string, kind: "quiet" | "primary", click: () => void): HTMLButtonElement {
  return h("button", { class: `button ${kind}`, on: { click } }, text);
}
