// The form: engines, model, and number of repeats.

import type { ModelRecord } from "../client";
import { byId, h } from "../page/dom";
import { bytes, modelName } from "../page/format";
import type { Contender, Machine, Settings } from "./contender";

const CHOSEN = ["webllm-cpu", "wllama"]; // at first

export class Choices {
  readonly form = byId("settings", HTMLFormElement);
  private readonly model = byId("model", HTMLSelectElement);
  private readonly mlcModel = byId("mlc-model", HTMLSelectElement);
  private readonly threads = byId("threads", HTMLInputElement);
  private readonly engines = byId("engines", HTMLDivElement);

  constructor(
    private readonly contenders: Contender[],
    private readonly models: ModelRecord[],
    mlcModelIds: string[],
    private readonly machine: Machine,
  ) {
    for (const each of models) this.model.append(new Option(label(each), each.model_id));
    for (const id of mlcModelIds) this.mlcModel.append(new Option(id));
    byId("mlc-model-field", HTMLLabelElement).hidden = mlcModelIds.length === 0;
    byId("no-peers", HTMLParagraphElement).hidden = mlcModelIds.length > 0;
    this.threads.value = String(navigator.hardwareConcurrency);
    this.showEngines(CHOSEN);
    this.model.addEventListener("change", () => this.showEngines(this.chosenIds()));
  }

  get settings(): Settings {
    return {
      model: this.models[this.model.selectedIndex]!,
      mlcModelId: this.mlcModel.value,
      promptTokens: number("prompt-tokens"),
      maxTokens: number("max-tokens"),
      numThreads: number("threads"),
    };
  }

  get repeats(): number {
    return number("repeats");
  }

  chosen(): Contender[] {
    const ids = this.chosenIds();
    return this.contenders.filter(({ id }) => ids.includes(id));
  }

  /** Locks the form during a measurement. */
  lock(isLocked: boolean): void {
    for (const field of this.form.querySelectorAll("fieldset, input, select")) {
      field.toggleAttribute("disabled", isLocked);
    }
    if (!isLocked) this.showEngines(this.chosenIds());
  }

  private chosenIds(): string[] {
    return [...this.engines.querySelectorAll("input")]
      .filter(({ checked }) => checked)
      .map(({ value }) => value);
  }

  private showEngines(chosen: string[]): void {
    const options = this.contenders.map((contender) => {
      const obstacle = contender.obstacle(this.settings, this.machine);
      const checked = !obstacle && chosen.includes(contender.id);
      const box = h("input", { type: "checkbox", value: contender.id, checked });
      box.disabled = obstacle !== "";
      const hint = obstacle && h("span", { class: "hint" }, obstacle);
      return h("label", { class: "engine" }, box, h("span", {}, contender.name, hint || null));
    });
    this.engines.replaceChildren(...options);
  }
}

function number(id: string): number {
  return byId(id, HTMLInputElement).valueAsNumber;
}

function label({ model_id, size_bytes }: ModelRecord): string {
  return size_bytes ? `${modelName(model_id)}, ${bytes(size_bytes)}` : modelName(model_id);
}
