// Creates elements in one expression, and finds the page's own elements by id.

type Child = Node | string | null | false;

/** Properties are those of the element; `data`, `aria` and `on` have those names in front. */
export interface Properties {
  id?: string;
  class?: string;
  type?: string;
  title?: string;
  role?: string;
  href?: string;
  name?: string;
  value?: string;
  rows?: number;
  dir?: "auto";
  hidden?: boolean;
  disabled?: boolean;
  checked?: boolean;
  aria?: Record<string, string>;
  data?: Record<string, string>;
  on?: { [Name in keyof HTMLElementEventMap]?: (event: HTMLElementEventMap[Name]) => void };
}

export function h<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  { class: className, aria, data, on, ...others }: Properties = {},
  ...children: Child[]
): HTMLElementTagNameMap[Tag] {
  const element = document.createElement(tag);
  if (className) element.className = className;
  for (const [name, value] of Object.entries(aria ?? {}))
    element.setAttribute(`aria-${name}`, value);
  Object.assign(element.dataset, data);
  for (const [name, listener] of Object.entries(on ?? {})) {
    element.addEventListener(name, listener as EventListener);
  }
  Object.assign(element, others);
  element.append(...children.filter((child): child is Node | string => Boolean(child)));
  return element;
}

/** Makes an element focusable while its content overflows, so that keys can scroll it. */
export function scrollableByKeys<Kind extends HTMLElement>(element: Kind): Kind {
  new ResizeObserver(() => {
    if (element.scrollHeight > element.clientHeight) element.tabIndex = 0;
    else element.removeAttribute("tabindex");
  }).observe(element);
  return element;
}

export function byId<Kind extends HTMLElement>(id: string, kind: new () => Kind): Kind {
  const element = document.getElementById(id);
  if (!(element instanceof kind)) throw new Error(`the page has no ${kind.name} #${id}`);
  return element;
}
