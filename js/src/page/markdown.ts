// A model's markdown as elements. Its output is untrusted: HTML in it is shown as text, images are
// shown as links (nothing is fetched), and what is left is sanitized.

import DOMPurify from "dompurify";
import { Marked, type Token, type Tokens } from "marked";

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

/** A block of the text, or one item of a list, which alone may be as long as the whole answer. */
export interface Block {
  raw: string;
  key: string; // the same for what looks the same
  isSpace: boolean;
  continuesList: boolean; // its first element is a list whose item belongs to the one before
  token: Token;
}

export function blocks(text: string): Block[] {
  return marked.lexer(text).flatMap((token) => (isList(token) ? items(token) : [block(token)]));
}

function isList(token: Token): token is Tokens.List {
  return token.type === "list";
}

function block(token: Token): Block {
  const { raw, type } = token;
  return { raw, key: raw, isSpace: type === "space", continuesList: false, token };
}

function items(list: Tokens.List): Block[] {
  return list.items.map((item, index) => ({
    raw: item.raw,
    key: `${item.loose} ${item.raw}`,
    isSpace: false,
    continuesList: index > 0,
    token: { ...list, raw: item.raw, items: [item] },
  }));
}

/** `codeBlock` puts what the page adds around a block of code. */
export function render(token: Token, codeBlock: CodeBlock): DocumentFragment {
  const fragment = DOMPurify.sanitize(marked.parser([token]), {
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
