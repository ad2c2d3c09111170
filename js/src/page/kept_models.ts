// The models stored in the browser: which they are, and deleting them.

import type { AppConfig, ModelRecord } from "../client";
import { deleteStoredModel, hasStoredModel } from "../client/model_store";
import type { State } from "./state";
import type { Store } from "./store";

export class KeptModels {
  constructor(
    private readonly store: Store<State>,
    private readonly appConfig: AppConfig, // says where models are kept
  ) {}

  /** Updates the state's list of stored models. */
  async look(): Promise<void> {
    const models = this.models();
    const found = await Promise.all(models.map((each) => this.isKept(each)));
    const kept = models.filter((_, index) => found[index]).map((each) => each.model_id);
    this.store.set("kept", new Set(kept));
  }

  async delete(modelId: string): Promise<void> {
    await deleteStoredModel(modelId, this.config());
    await this.look();
  }

  /** False also if the browser blocks its storage: then the model is downloaded. */
  private async isKept({ model_id }: ModelRecord): Promise<boolean> {
    try {
      return await hasStoredModel(model_id, this.config());
    } catch {
      return false;
    }
  }

  private config(): AppConfig {
    return { ...this.appConfig, model_list: this.models() };
  }

  private models(): ModelRecord[] {
    return [...this.store.get("models"), ...this.store.get("listed")];
  }
}
