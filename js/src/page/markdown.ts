// A model's markdown as elements. Its output is untrusted: HTML in it is shown as text, images are
// shown as links (nothing is fetched), and what is left is sanitized.

import DOMPurify from "dompurify";
import { Marked, type Token, type TokensList } from "marked";

const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    html: ({ text }) => escape(text),
    image: ({ href, text }) => `<a href="${escape(href)}">${escape(text || href)}</a>`,
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
    heading({ tokens, depth }) {
      const level = Math.min(depth + 2, 6); // below the page's and the message's own
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
  },
});

const ALLOWED_TAGS = [
  ...["h3", "h4", "h5", "h6", "p", "br", "hr", "blockquote", "ul", "ol", "li", "pre", "code"],
  ...["strong", "em", "del", "a", "table", "thead", "tbody", "tr", "th", "td"],
];
const ALLOWED_ATTR = ["href", "title", "start", "align", "class"];
const ALLOWED_URI_REGEXP = /^(?:https?|mailto):/i;

export type CodeBlock = (code: HTMLPreElement, language: string) => HTMLElement;

/** The text's top-level blocks: what is before the last one no longer changes as text comes. */
export function blocks(text: string): TokensList {
  return marked.lexer(text);
}

/** `codeBlock` puts what the page adds around a block of code. */
export function render(block: Token, codeBlock: CodeBlock): DocumentFragment {
  const fragment = DOMPurify.sanitize(marked.parser([block]), {
    ALLOWED_TAGS,
    ALLOWED_ATTR,
    ALLOWED_URI_REGEXP,
    ADD_URI_SAFE_ATTR: ["align", "start"], // their values are not addresses
    RETURN_DOM_FRAGMENT: true,
  });
  for (const link of fragment.querySelectorAll("a")) guard(link);
  for (const table of fragment.querySelectorAll("table")) makeScrollable(table);
  for (const pre of fragment.querySelectorAll("pre")) {
    const name = pre.firstElementChild?.className.replace("language-", "") ?? "";
    pre.replaceWith(codeBlock(pre.cloneNode(true) as HTMLPreElement, name));
  }
  return fragment;
}

function guard(link: HTMLAnchorElement): void {
  link.target = "_blank";
  link.rel = "noopener noreferrer nofollow";
}

function makeScrollable(table: HTMLTableElement): void {
  const frame = document.createElement("div");
  frame.className = "table-frame";
  frame.tabIndex = 0; // so that it scrolls by keys, too
  frame.role = "region";
  frame.ariaLabel = "Table";
  table.replaceWith(frame);
  frame.append(table);
}

function escape(text: string): string {
  const entities: Record<string, string> = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
  };
  return text.replace(/[&<>"]/g, (character) => entities[character] ?? character);
}
