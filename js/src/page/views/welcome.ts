// The welcome text and suggestions of an empty conversation.

import { find } from "../conversations";
import { byId, h } from "../dom";
import type { State } from "../state";
import type { Store } from "../store";
import { t, type TextKey } from "../texts";

const SUGGESTIONS: [TextKey, TextKey][] = [
  ["suggestExplain", "suggestExplainRest"],
  ["suggestWrite", "suggestWriteRest"],
  ["suggestDraft", "suggestDraftRest"],
  ["suggestList", "suggestListRest"],
];

export class Welcome {
  private readonly section = byId("welcome", HTMLElement);

  constructor(store: Store<State>, send: (text: string) => void) {
    this.section.append(
      h("p", { class: "welcome-title" }, t("welcomeTitle")),
      h("p", { class: "welcome-text" }, t("welcomeText")),
      h("ul", { class: "suggestions" }, ...SUGGESTIONS.map((each) => suggestion(each, send))),
    );
    store.watch(["conversations", "currentId", "isOpening"], () => {
      const conversation = find(store.get("conversations"), store.get("currentId"));
      this.section.hidden = conversation !== undefined || store.get("isOpening");
    });
  }
}

/** A sentence in two parts, which is sent when it is clicked. */
export function suggestion(
  [verbKey, restKey]: [TextKey, TextKey],
  send: (text: string) => unknown,
): HTMLLIElement {
  const [verb, rest] = [t(verbKey), t(restKey)];
  const click = () => void send(`${verb} ${rest}.`);
  return h(
    "li",
    {},
    h("button", { class: "suggestion", on: { click } }, h("strong", {}, verb), ` ${rest}`),
  );
}
