// The texts that people read, and their translation. In an extension Chrome chooses the language, from
// the _locales that build_extension.mjs writes; other pages are in English. "$1" is the first value.

import { ENGLISH, type TextKey } from "./texts_en";

export type { TextKey } from "./texts_en";

/** The text of a key, with values in place of $1, $2 and so on. */
export function t(key: TextKey, ...values: (string | number)[]): string {
  const given = values.map(String);
  const translated = globalThis.chrome?.i18n?.getMessage(key, given);
  return (
    translated || ENGLISH[key].replace(/\$(\d)/g, (_, digit) => given[Number(digit) - 1] ?? "")
  );
}

/** Fills the elements of the page's own HTML: data-text, data-label and data-placeholder are keys. */
export function placeTexts(root: ParentNode): void {
  const each = (name: string, place: (element: HTMLElement, text: string) => void) => {
    for (const element of root.querySelectorAll<HTMLElement>(`[data-${name}]`)) {
      place(element, t(element.dataset[name] as TextKey));
    }
  };
  each("text", (element, text) => element.append(text));
  each("label", (element, text) => (element.ariaLabel = text));
  each("placeholder", (element, text) => element.setAttribute("placeholder", text));
}
