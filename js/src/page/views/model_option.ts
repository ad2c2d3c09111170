// One model of a choice: size, whether it fits this device, and whether it is stored.

import type { ModelRecord } from "../../client";
import { parseName } from "../../client/variants";
import { h } from "../dom";
import { fit, type Fit } from "../fit";
import { bytes, modelName } from "../format";
import { icon } from "../icons";
import { sourceOf } from "../model_source";
import type { State } from "../state";
import type { Store } from "../store";
import { t } from "../texts";

const WHERE = {
  browser: "sizeHere",
  disk: "sizeOnDisk",
  network: "sizeToDownload",
  package: "sizeInPackage",
} as const;

export interface Choice {
  chosen: string; // a model's id
  group: "model" | "listed-model"; // of radio buttons, so that Tab stops once in each list
  choose: (model: ModelRecord) => void;
  delete: (modelId: string) => void;
}

export function modelOption(model: ModelRecord, store: Store<State>, choice: Choice): HTMLElement {
  const { model_id: id } = model;
  const device = store.get("device");
  const isKept = store.get("kept").has(id);
  const fits = device && fit(model, device, isKept);
  const radio = h("input", {
    type: "radio",
    name: choice.group,
    value: id,
    checked: id === choice.chosen,
    on: { change: () => choice.choose(model) },
  });
  const label = h(
    "label",
    {},
    radio,
    h(
      "span",
      { class: "model-option-text" },
      h("span", { class: "model-option-name" }, modelName(id)),
      h("span", { class: "model-option-detail" }, details(model, isKept, fits?.fits)),
    ),
    fits && (!fits.fits || choice.group === "model") && fitNote(fits),
  );
  return h("div", { class: "model-option" }, label, isKept && deletion(id, choice));
}

function fitNote({ fits, text }: Fit): HTMLElement {
  return h("span", { class: fits ? "fit yes" : "fit no" }, text);
}

function deletion(modelId: string, choice: Choice): HTMLButtonElement {
  const label = t("deleteModel", modelName(modelId));
  const click = () => choice.delete(modelId);
  const properties = { class: "icon-button", type: "button", title: label, aria: { label } };
  return h("button", { ...properties, on: { click } }, icon("trash"));
}

function details(model: ModelRecord, isKept: boolean, doesFit = true): string {
  const { size_bytes: size, vram_required_MB: memory } = model;
  const name = parseName(model.model_id);
  const context = name?.form && model.overrides?.context_window_size;
  const parts = [
    size && t(WHERE[isKept ? "browser" : sourceOf(model).kind], bytes(size)),
    !size && isKept && t("keptHere"),
    memory && t("sizeMemory", bytes(memory * 1e6)),
    name?.quantization,
    context && t("contextOf", context),
    name && doesFit && model.low_resource_required && t("forSmall"),
  ];
  return parts.filter(Boolean).join(" · ") || t("sizeUnknown");
}
