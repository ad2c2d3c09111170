// Shows which model is chosen and where it runs.

import { byId } from "../dom";
import { deviceKind, deviceText, isCpu } from "../device_text";
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
    this.name.textContent = modelName(this.store.get("modelId")) || "No model";
    this.dot.dataset.phase = model.phase;
    this.badge.hidden = model.phase !== "ready";
    if (model.phase !== "ready") return;
    this.badge.textContent = deviceKind(model.device);
    this.badge.title = model.device;
  }
}

function note(model: ModelState, device: Device | null): string {
  const because = device?.noGpuBecause ? `: ${device.noGpuBecause}` : "";
  if (model.phase === "ready") {
    return `Runs on ${deviceText(model.device)}${isCpu(model.device) ? because : ""}. ${PRIVATE}`;
  }
  if (device === null) return PRIVATE;
  return `Will run on ${device.gpu ? "WebGPU" : "the CPU"}${because}. ${PRIVATE}`;
}
