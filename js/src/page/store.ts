// An observable state. Listeners run once, after all changes of the same turn.

export class Store<State extends object> {
  private readonly listeners = new Map<keyof State, Set<() => void>>();
  private readonly due = new Set<() => void>();

  constructor(private state: State) {}

  get<Key extends keyof State>(key: Key): State[Key] {
    return this.state[key];
  }

  set<Key extends keyof State>(key: Key, value: State[Key]): void {
    if (this.state[key] === value) return;
    this.state = { ...this.state, [key]: value };
    if (this.due.size === 0) queueMicrotask(() => this.notify());
    for (const listener of this.listeners.get(key) ?? []) this.due.add(listener);
  }

  /** Calls the listener now, and whenever one of the fields has changed. */
  watch(keys: (keyof State)[], listener: () => void): void {
    for (const key of keys) {
      const all = this.listeners.get(key) ?? new Set();
      this.listeners.set(key, all.add(listener));
    }
    listener();
  }

  private notify(): void {
    const listeners = [...this.due];
    this.due.clear();
    for (const listener of listeners) {
      try {
        listener();
      } catch (error) {
        reportError(error); // the other views are updated
      }
    }
  }
}
