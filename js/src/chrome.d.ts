// What we use of Chrome's API for extensions: https://developer.chrome.com/docs/extensions/reference/api

interface Listening<Listener> {
  addListener(listener: Listener): void;
  removeListener(listener: Listener): void;
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
  getManifest(): { background?: object };
  getURL(path: string): string;
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

export interface Tab {
  id?: number;
  title?: string; // this and url only of pages that the extension may read
  url?: string;
}

interface Tabs {
  create(properties: { url: string }): Promise<Tab>;
  get(tabId: number): Promise<Tab>;
  getCurrent(): Promise<Tab | undefined>; // of this page; undefined in a popup
  query(filter: { active: boolean; currentWindow: boolean }): Promise<Tab[]>;
}

interface Scripting {
  executeScript<Result>(injection: {
    target: { tabId: number };
    func: () => Result;
  }): Promise<{ result?: Result }[]>;
}

interface StorageArea {
  get(keys: string[]): Promise<Record<string, unknown>>;
  set(items: Record<string, unknown>): Promise<void>;
}

type OnChanged = (changes: Record<string, { oldValue?: any; newValue?: any }>) => void;

interface I18n {
  getMessage(key: string, substitutions?: string[]): string; // "" for an unknown key
}

interface Chrome {
  i18n?: I18n;
  offscreen?: Offscreen;
  runtime?: Runtime;
  scripting?: Scripting;
  storage?: { local: StorageArea; session: StorageArea; onChanged: Listening<OnChanged> };
  tabs?: Tabs;
  windows?: Windows;
}

declare global {
  /** Only in extensions, and `runtime.connect` alone in web pages that one of them lists. */
  var chrome: Chrome | undefined;
}
