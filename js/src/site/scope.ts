// A Service Worker's global scope: the part that sw.ts uses. TypeScript's own types of it exclude
// those of pages.

export interface LifetimeEvent extends Event {
  waitUntil(settled: Promise<unknown>): void;
}

export interface FetchEvent extends LifetimeEvent {
  readonly request: Request;
  respondWith(response: Promise<Response>): void;
}

export interface ScopeMessageEvent extends LifetimeEvent {
  readonly data: unknown;
  readonly ports: readonly MessagePort[];
}

export interface WindowClient {
  readonly url: string;
  navigate(url: string): Promise<unknown>;
}

interface Events {
  install: LifetimeEvent;
  activate: LifetimeEvent;
  fetch: FetchEvent;
  message: ScopeMessageEvent;
}

export interface SiteScope {
  fetch: typeof fetch;
  readonly location: Location;
  readonly registration: ServiceWorkerRegistration;
  readonly clients: {
    claim(): Promise<void>;
    matchAll(options: {
      type: "window";
      includeUncontrolled?: boolean;
    }): Promise<readonly WindowClient[]>;
  };
  /** The site's files with their SHA-256, by their paths relative to this script: its first line. */
  readonly webllmFiles?: Readonly<Record<string, string>>;
  skipWaiting(): Promise<void>;
  addEventListener<Kind extends keyof Events>(
    kind: Kind,
    listener: (event: Events[Kind]) => void,
  ): void;
}
