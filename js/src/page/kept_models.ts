// Which models the browser keeps, and their end.

import { deleteModelAllInfoInCache, hasModelInCache, type ModelRecord } from "../client";
import type { State } from "./state";
import type { Store } from "./store";

export class KeptModels {
  constructor(private readonly store: Store<State>) {}

  /** Looks again what is kept, into the state. */
  async look(): Promise<void> {
    const models = this.store.get("models");
    const found = await Promise.all(models.map((each) => this.isKept(each)));
    const kept = models.filter((_, index) => found[index]).map((each) => each.model_id);
    this.store.set("kept", new Set(kept));
  }

  async delete(modelId: string): Promise<void> {
    await deleteModelAllInfoInCache(modelId, { model_list: this.store.get("models") });
    await this.look();
  }

  /** Also false where the browser refuses to say: then the model is downloaded. */
  private async isKept({ model_id }: ModelRecord): Promise<boolean> {
    try {
      return await hasModelInCache(model_id, { model_list: this.store.get("models") });
    } catch {
      return false;
    }
  }
}
