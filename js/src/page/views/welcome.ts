// The welcome text and suggestions of an empty conversation.

import { find } from "../conversations";
import { byId, h } from "../dom";
import type { State } from "../state";
import type { Store } from "../store";

const SUGGESTIONS = [
  ["Explain", "what a GPU is good at, in two sentences"],
  ["Write", "a Python function that finds prime numbers"],
  ["Draft", "a friendly note that declines an invitation"],
  ["List", "three ideas for a rainy afternoon"],
] as const;

export class Welcome {
  private readonly section = byId("welcome", HTMLElement);

  constructor(store: Store<State>, send: (text: string) => void) {
    this.section.append(
      h("p", { class: "welcome-title" }, "A language model, right in your browser"),
      h(
        "p",
        { class: "welcome-text" },
        "It runs on this device, in Python. Nothing you type leaves it. Once the model is ",
        "loaded, answers need no network.",
      ),
      h("ul", { class: "suggestions" }, ...SUGGESTIONS.map((each) => suggestion(each, send))),
    );
    store.watch(["conversations", "currentId", "isOpening"], () => {
      const conversation = find(store.get("conversations"), store.get("currentId"));
      this.section.hidden = conversation !== undefined || store.get("isOpening");
    });
  }
}

function suggestion(
  [verb, rest]: readonly [string, string],
  send: (text: string) => void,
): HTMLLIElement {
  const click = () => send(`${verb} ${rest}.`);
  return h(
    "li",
    {},
    h("button", { class: "suggestion", on: { click } }, h("strong", {}, verb), ` ${rest}`),
  );
}
