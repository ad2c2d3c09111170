// Markdown that grows: at most one rendering a frame, and only of the blocks that can have changed.

import { blocks, render, type CodeBlock } from "./markdown";

interface Block {
  raw: string;
  isSpace: boolean;
  nodes: ChildNode[];
}

export class StreamingMarkdown {
  private text = "";
  private shown = "";
  private frame: number | undefined;
  private rendered: Block[] = [];

  constructor(
    private readonly element: HTMLElement,
    private readonly codeBlock: CodeBlock,
  ) {}

  show(text: string): void {
    this.text = text.replace(/\r\n?/g, "\n"); // as in the blocks' own text
    if (this.text !== this.shown) this.frame ??= requestAnimationFrame(() => this.render());
  }

  private render(): void {
    this.frame = undefined;
    let kept = this.text.startsWith(this.shown) ? this.numSettled() : 0;
    const begin = this.rendered.slice(0, kept).reduce((sum, { raw }) => sum + raw.length, 0);
    const tokens = blocks(this.text.slice(begin));
    while (tokens[0] && tokens[0].raw === this.rendered[kept]?.raw) {
      tokens.shift();
      kept += 1;
    }
    for (const { nodes } of this.rendered.splice(kept)) nodes.forEach((node) => node.remove());
    for (const token of tokens) {
      const fragment = render(token, this.codeBlock);
      const nodes = [...fragment.childNodes];
      this.rendered.push({ raw: token.raw, isSpace: token.type === "space", nodes });
      this.element.append(fragment);
    }
    this.shown = this.text;
  }

  /** What comes can belong to the last block, also after empty lines: to a list. */
  private numSettled(): number {
    return Math.max(0, this.rendered.map(({ isSpace }) => isSpace).lastIndexOf(false));
  }
}
