// A block of code with its language and a button that copies it.

import type { Announcer } from "../announcer";
import { h } from "../dom";
import { icon } from "../icons";
import { t } from "../texts";

const SHOWN_MS = 1500;

export function codeBlock(
  pre: HTMLPreElement,
  language: string,
  announcer: Announcer,
): HTMLElement {
  pre.tabIndex = 0; // so that it scrolls by keys, too
  return h(
    "div",
    { class: "code-block" },
    h(
      "div",
      { class: "code-head" },
      h("span", {}, language || "text"),
      copyButton(t("copyCode"), () => pre.textContent ?? "", announcer),
    ),
    pre,
  );
}

export function copyButton(
  label: string,
  text: () => string,
  announcer: Announcer,
): HTMLButtonElement {
  const button = h("button", { class: "icon-button", title: label, aria: { label } }, icon("copy"));
  const copy = async () => {
    await navigator.clipboard.writeText(text());
    announcer.say(t("copied"));
    button.replaceChildren(icon("check"));
    setTimeout(() => button.replaceChildren(icon("copy")), SHOWN_MS);
  };
  const refuse = () => announcer.say(t("copyRefused"));
  button.addEventListener("click", () => void copy().catch(refuse));
  return button;
}
