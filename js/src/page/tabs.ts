// What the tabs with this page tell each other, and which of them has an answer.

export type News =
  | { kind: "kept"; conversationId: string } // or deleted
  | { kind: "loading" | "loaded"; modelId: string; root: string }; // root: of the shared engine

export class OtherTabs {
  private readonly channel = new BroadcastChannel("webllm-chat");

  tell(news: News): void {
    this.channel.postMessage(news);
  }

  hear(listener: (news: News) => void): void {
    this.channel.addEventListener("message", ({ data }) => listener(data as News));
  }
}

/** Whether tabs know of each other. Not on pages without https, which have no Web Locks. */
export const HAS_LOCKS = Boolean((navigator as { locks?: LockManager }).locks);

/**
 * Acts as the only tab that has an answer: once no other one has it, or at once as `stop` aborts, which
 * takes the answer from the other tab. `taken` aborts when another tab does so to this one. `act` must
 * not throw. Without Web Locks it acts at once.
 */
export async function asOnlyTab(
  answerId: string,
  stop: AbortSignal,
  act: (taken: AbortSignal) => Promise<void>,
): Promise<void> {
  const taken = new AbortController();
  if (!HAS_LOCKS) return act(taken.signal);
  const waiting = new AbortController();
  const leave = () => waiting.abort();
  stop.addEventListener("abort", leave);
  if (stop.aborted) leave();
  let acting: Promise<void> | undefined;
  const hold = (options: LockOptions) =>
    navigator.locks.request(`webllm-chat ${answerId}`, options, () => {
      acting = act(taken.signal);
      return acting;
    });
  await hold({ signal: waiting.signal })
    .catch((error: unknown) => {
      if (acting || !stop.aborted) throw error;
      return hold({ steal: true });
    })
    .catch(() => taken.abort());
  await (acting ?? act(new AbortController().signal)); // if the browser refuses locks
}
