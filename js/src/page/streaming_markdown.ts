// Markdown that grows: renders at most once per frame, and only the blocks that may have changed.

import { blocks, render, type Block, type CodeBlock } from "./markdown";

interface Rendered extends Block {
  nodes: ChildNode[];
}

export class StreamingMarkdown {
  private text = "";
  private shown = "";
  private frame: number | undefined;
  private rendered: Rendered[] = [];

  constructor(
    private readonly element: HTMLElement,
    private readonly codeBlock: CodeBlock,
  ) {}

  show(text: string): void {
    this.text = text.replace(/\r\n?/g, "\n"); // as in the blocks' own text
    if (this.text !== this.shown) this.frame ??= requestAnimationFrame(() => this.render());
  }

  /** Renders what is still to be shown, without waiting for a frame. */
  flush(): void {
    if (this.frame === undefined) return;
    cancelAnimationFrame(this.frame);
    this.render();
  }

  private render(): void {
    this.frame = undefined;
    let kept = this.text.startsWith(this.shown) ? this.numSettled() : 0;
    const begin = this.rendered.slice(0, kept).reduce((sum, { raw }) => sum + raw.length, 0);
    const found = blocks(this.text.slice(begin));
    const isSame = (each: Block, index: number) => each.key === this.rendered[kept + index]?.key;
    const numSame = found.findIndex((each, index) => !isSame(each, index));
    kept += numSame < 0 ? found.length : numSame;
    for (const { nodes } of this.rendered.splice(kept)) nodes.forEach((node) => node.remove());
    for (const each of numSame < 0 ? [] : found.slice(numSame)) this.append(each);
    this.shown = this.text;
  }

  private append(block: Block): void {
    const fragment = render(block.token, this.codeBlock);
    const list = block.continuesList ? this.element.lastElementChild : null;
    const nodes = [...(list ? fragment.firstElementChild! : fragment).childNodes];
    this.rendered.push({ ...block, nodes });
    (list ?? this.element).append(...nodes);
  }

  /** New text may extend the last block. A list may continue even after empty lines. */
  private numSettled(): number {
    const isBegin = ({ isSpace, continuesList }: Block) => !isSpace && !continuesList;
    return Math.max(0, this.rendered.findLastIndex(isBegin));
  }
}
