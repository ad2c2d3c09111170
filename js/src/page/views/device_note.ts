// Says plainly where the model runs.

import { byId } from "../dom";
import { modelName } from "../format";
import type { Device } from "../device";
import type { ModelState, State } from "../state";
import type { Store } from "../store";

const PRIVATE = "Nothing you type leaves this device.";

export class DeviceNote {
  private readonly note = byId("device-note", HTMLParagraphElement);
  private readonly badge = byId("device-badge", HTMLSpanElement);
  private readonly dot = byId("model-dot", HTMLSpanElement);
  private readonly name = byId("model-name", HTMLSpanElement);

  constructor(private readonly store: Store<State>) {
    store.watch(["device", "model", "modelId"], () => this.render());
  }

  private render(): void {
    const model = this.store.get("model");
    const device = this.store.get("device");
    this.note.textContent = note(model, device);
    this.name.textContent = modelName(this.store.get("modelId"));
    this.dot.dataset.phase = model.phase;
    this.badge.hidden = model.phase !== "ready";
    this.badge.textContent = model.phase === "ready" && model.gpuVendor !== null ? "WebGPU" : "CPU";
  }
}

function note(model: ModelState, device: Device | null): string {
  if (model.phase === "ready" && model.gpuVendor !== null) {
    return `Runs here, on WebGPU (${model.gpuVendor}). ${PRIVATE}`;
  }
  if (device === null) return PRIVATE;
  if (device.gpu && model.phase !== "ready") return `Will run here, on WebGPU. ${PRIVATE}`;
  const because = device.noGpuBecause ? `: ${device.noGpuBecause}` : "";
  return `Runs here, on the CPU${because}. ${PRIVATE}`;
}
