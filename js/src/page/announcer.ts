// Announcements for screen readers. An answer is read once, when it is complete, not word by word.

export class Announcer {
  constructor(private readonly region: HTMLElement) {}

  say(text: string): void {
    const line = document.createElement("p");
    line.textContent = text;
    this.region.replaceChildren(line);
  }
}
