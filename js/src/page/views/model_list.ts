// WebLLM's list of models below those of the site: fetched once it is opened, and searchable.

import type { ModelRecord } from "../../client";
import { h } from "../dom";
import { errorText } from "../format";
import { icon } from "../icons";
import { found } from "../listed_models";
import type { State } from "../state";
import type { Store } from "../store";
import { t } from "../texts";
import { modelOption, type Choice } from "./model_option";

export class ModelList {
  readonly element: HTMLDetailsElement;
  private readonly search = h("input", { type: "search", id: "models-search" });
  private readonly status = h("p", { class: "hint", role: "status" });
  private readonly options = h("div", {
    class: "model-list",
    role: "radiogroup",
    aria: { label: t("moreModels") },
  });
  private isAsked = false;

  constructor(
    private readonly store: Store<State>,
    private readonly choice: () => Choice,
    private readonly fetchListed: () => Promise<ModelRecord[]>,
  ) {
    this.search.autocomplete = "off";
    this.search.addEventListener("input", () => this.build());
    this.search.addEventListener("keydown", (event) => {
      if (event.key === "Enter") event.preventDefault(); // it would load the model
    });
    const toggle = () => void this.opened();
    this.element = h(
      "details",
      { class: "more-models", on: { toggle } },
      h("summary", {}, icon("down"), t("moreModels")),
      h("label", { class: "field" }, h("span", { class: "field-label" }, t("search")), this.search),
      this.status,
      this.options,
    );
  }

  /** Shows the models anew; the focus stays on the option that has it. */
  build(): void {
    const listed = this.store.get("listed");
    if (!this.element.open || listed.length === 0) return;
    const hasFocus = this.options.contains(document.activeElement);
    const shown = found(listed, this.search.value, this.store.get("device"));
    const choice = this.choice();
    this.options.replaceChildren(...shown.map((each) => modelOption(each, this.store, choice)));
    if (hasFocus) this.options.querySelector<HTMLInputElement>("input:checked")?.focus();
    const isSearch = this.search.value.trim() !== "";
    this.status.textContent = t(isSearch ? "modelsFound" : "modelsFitting", shown.length);
  }

  private async opened(): Promise<void> {
    if (this.element.open && !this.isAsked) {
      this.isAsked = true;
      this.status.textContent = t("modelsLoading");
      try {
        this.store.set("listed", await this.fetchListed());
      } catch (error) {
        this.isAsked = false;
        this.status.textContent = t("modelsFailed", errorText(error));
        return;
      }
    }
    this.build();
    if (this.element.open) this.element.scrollIntoView({ block: "start" });
  }
}
