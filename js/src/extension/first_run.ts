// What a new user sees before anything is downloaded: the model, its size, its source. It asks.

import type { ModelRecord } from "../client";
import { find } from "../page/conversations";
import { byId, h } from "../page/dom";
import { bytes, modelName } from "../page/format";
import type { ModelSession } from "../page/model_session";
import { sourceOf } from "../page/model_source";
import type { State } from "../page/state";
import type { Store } from "../page/store";
import { t } from "../page/texts";
import type { Confirm } from "../page/views/confirm";

/** Shown in empty conversations while no model is loaded. */
export class FirstRun {
  private readonly section = byId("first-run", HTMLElement);

  constructor(
    private readonly store: Store<State>,
    private readonly session: ModelSession,
    private readonly chooseModel: () => void,
  ) {
    store.watch(["model", "modelId", "models", "kept", "conversations", "currentId"], () =>
      this.render(),
    );
  }

  private render(): void {
    const { store, section } = this;
    const model = recordOf(store);
    const isEmpty = !find(store.get("conversations"), store.get("currentId"));
    section.hidden = store.get("model").phase !== "none" || !isEmpty || !model;
    if (section.hidden || !model) return section.replaceChildren();
    const hasFocus = section.contains(document.activeElement);
    const load = {
      class: "button primary",
      on: { click: () => this.session.load(model.model_id) },
    };
    const action = h("button", load, t(needsDownload(store, model) ? "download" : "loadModel"));
    section.replaceChildren(
      h("p", { class: "welcome-title" }, t("firstTitle")),
      h("p", { class: "welcome-text" }, t("firstText")),
      facts(store, model),
      h(
        "div",
        { class: "dialog-actions" },
        h("button", { class: "button quiet", on: { click: this.chooseModel } }, t("otherModel")),
        action,
      ),
    );
    if (hasFocus) action.focus();
  }
}

/** Whether to load the chosen model would download it. */
export function downloads(store: Store<State>): boolean {
  const model = recordOf(store);
  return model !== undefined && needsDownload(store, model);
}

/** Asks before a question downloads a model; others are loaded without asking. */
export async function asksToLoad(store: Store<State>, confirm: Confirm): Promise<boolean> {
  const model = recordOf(store);
  if (!model || !needsDownload(store, model)) return true;
  const source = sourceOf(model);
  const size = model.size_bytes ? bytes(model.size_bytes) : t("unknownAmount");
  const isKept = !store.get("notKept").has("models");
  return confirm.ask({
    title: t("downloadTitle"),
    text: `${modelName(model.model_id)}: ${t(
      isKept ? "downloadText" : "downloadTextUnkept",
      size,
      source.kind === "network" ? source.from : "",
    )}`,
    action: t("download"),
    isDanger: false,
  });
}

function facts(store: Store<State>, model: ModelRecord): HTMLElement {
  const { size_bytes: size, vram_required_MB: memory } = model;
  const source = sourceOf(model);
  const from = {
    disk: () => t("onDisk"),
    package: () => t("inPackage"),
    network: () => (needsDownload(store, model) && "from" in source ? source.from : t("inBrowser")),
  }[source.kind]();
  const rows: [string, string][] = [
    [t("firstModel"), modelName(model.model_id)],
    [t("firstSize"), size ? bytes(size) : t("sizeUnknown")],
    [t("firstSource"), from],
  ];
  if (memory) rows.push([t("firstMemory"), bytes(memory * 1e6)]);
  return h(
    "dl",
    { class: "first-run-facts" },
    ...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]),
  );
}

function needsDownload(store: Store<State>, model: ModelRecord): boolean {
  return sourceOf(model).kind === "network" && !store.get("kept").has(model.model_id);
}

function recordOf(store: Store<State>): ModelRecord | undefined {
  return store.get("models").find((each) => each.model_id === store.get("modelId"));
}
