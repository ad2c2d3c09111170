// The text of a web page, read by the function that Chrome runs in it.

export interface ReadPage {
  contentType: string;
  url: string;
  title: string;
  text: string; // "" if there is none
}

/**
 * Reads the main text of this document: its article or main element if there is one. Leaves out
 * navigation, forms, scripts, and what is hidden. Runs in the page, so it can use nothing from outside.
 */
export function readPage(): ReadPage {
  const MAX_LENGTH = 400_000; // far more than any model takes
  const MAX_TITLE_LENGTH = 300;
  const LEAST = 200; // characters of an article worth taking alone
  const LEFT_OUT =
    "script,style,noscript,template,nav,aside,footer,form,dialog,menu,button,input,select,textarea," +
    "svg,canvas,iframe,object,embed,video,audio,[aria-hidden=true]," +
    "body>header,[role=navigation],[role=search],[role=banner],[role=contentinfo],[role=dialog]";
  const BLOCK = /^(block|flex|grid|list-item|table|table-row|flow-root|table-caption)$/;
  const APART = /^(P|H[1-6]|PRE|UL|OL|TABLE|BLOCKQUOTE)$/; // after an empty line

  // Names of form fields and images hide members of the elements that contain them.
  const { matches } = Element.prototype;
  const title: string = Reflect.get(Document.prototype, "title", document);
  const body: HTMLElement | null = Reflect.get(Document.prototype, "body", document);

  function textOf(root: Element): string {
    const parts: string[] = [];
    let length = 0;
    let due = 0; // new lines before the next text
    const add = (text: string): void => {
      const begins = due > 0 || length === 0;
      if (begins && text.trim() === "") return;
      const lines = "\n".repeat(length === 0 ? 0 : due) + (begins ? text.replace(/^ /, "") : text);
      due = 0;
      length += lines.length;
      parts.push(lines);
    };
    const visit = (node: Node): void => {
      if (length > MAX_LENGTH) return;
      if (node instanceof Text) {
        const isPlain = !node.parentElement?.closest("pre");
        return add(isPlain ? node.data.replace(/\s+/g, " ") : node.data);
      }
      if (!(node instanceof Element) || (node !== root && matches.call(node, LEFT_OUT))) return;
      const { tagName } = node;
      const { display, visibility } = getComputedStyle(node);
      if (display === "none" || visibility === "hidden") return;
      const edge = APART.test(tagName) ? 2 : BLOCK.test(display) ? 1 : 0;
      due = Math.max(due, edge, tagName === "BR" ? 1 : 0);
      if (tagName === "LI") add("- ");
      if (display === "table-cell" && node.previousElementSibling) add(" | ");
      const assigned = node instanceof HTMLSlotElement ? node.assignedNodes() : [];
      const inner = assigned.length > 0 ? assigned : (node.shadowRoot ?? node).childNodes;
      for (const child of inner) visit(child);
      due = Math.max(due, edge);
    };
    visit(root);
    return parts
      .join("")
      .replace(/[^\S\n]+\n/g, "\n")
      .replace(/\n{3,}/g, "\n\n")
      .trim();
  }

  const articles = document.querySelectorAll("article");
  const main = document.querySelector("main, [role=main]");
  const roots = [articles.length === 1 ? articles[0] : null, main, body];
  let text = "";
  for (const root of roots) {
    if (root && text.length < LEAST) text = textOf(root) || text;
  }
  return {
    contentType: document.contentType,
    url: location.href,
    title: title.slice(0, MAX_TITLE_LENGTH),
    text,
  };
}
