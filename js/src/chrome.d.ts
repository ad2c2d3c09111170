// What we use of Chrome's API for extensions: https://developer.chrome.com/docs/extensions/reference/api

interface Listening<Listener> {
  addListener(listener: Listener): void;
}

export interface Sender {
  id?: string; // of the extension
  origin?: string;
  url?: string;
}

export interface Port {
  name: string;
  sender?: Sender;
  onMessage: Listening<(message: any, port: Port) => void>;
  onDisconnect: Listening<(port: Port) => void>;
  postMessage(message: object): void;
  disconnect(): void;
}

interface Runtime {
  id?: string;
  lastError?: { message?: string };
  onConnect: Listening<(port: Port) => void>;
  onConnectExternal: Listening<(port: Port) => void>;
  connect(info: { name: string }): Port;
  connect(extensionId: string, info: { name: string }): Port;
  getContexts(filter: { contextTypes: "OFFSCREEN_DOCUMENT"[] }): Promise<object[]>;
  getURL(path: string): string;
}

interface StorageArea {
  get(key: string): Promise<Record<string, unknown>>;
  set(items: Record<string, unknown>): Promise<void>;
}

interface Windows {
  create(options: {
    url: string;
    type: "popup";
    focused: boolean;
    width: number;
    height: number;
  }): Promise<{ id?: number }>;
  onRemoved: Listening<(id: number) => void>;
}

interface Offscreen {
  createDocument(options: { url: string; reasons: string[]; justification: string }): Promise<void>;
}

declare global {
  /** Only in extensions, and `runtime.connect` alone in web pages that one of them lists. */
  var chrome:
    | {
        runtime?: Runtime;
        offscreen?: Offscreen;
        storage?: { local: StorageArea; session: StorageArea };
        windows?: Windows;
      }
    | undefined;
}
