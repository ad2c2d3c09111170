// The ports from outside of the extension. Each is served once the user agrees, and bounded: who opens
// many, or posts much before that, takes no memory by it.

import type { Port } from "../chrome";
import { ExtensionPort, type OpenHome } from "../extension_ports";
import { originOf, type Consents } from "./consents";

const MAX_PORTS = 32; // of one origin
const MAX_EARLY_CHARS = 100_000; // of a port's messages until the user has answered

interface Admission {
  modelIds: ReadonlySet<string>; // those that it may name
  refusal: string | null; // why it gets no engine
}

export class ForeignPorts {
  private readonly clients = new Map<Port, ExtensionPort>();

  constructor(
    private readonly consents: Consents,
    private readonly modelIds: () => Promise<ReadonlySet<string>>,
    private readonly openHome: OpenHome,
  ) {}

  add(port: Port): void {
    const origin = originOf(port);
    if (this.of(origin).length >= MAX_PORTS) return this.turnAway(port, origin);
    const client = new ExtensionPort(port, this.openHome);
    this.clients.set(port, client);
    port.onDisconnect.addListener(() => this.clients.delete(port));
    let numEarlyChars: number | null = 0; // null: it is decided
    const admission = this.admit(origin).finally(() => (numEarlyChars = null));
    port.onMessage.addListener(async (message) => {
      if (numEarlyChars !== null) {
        client.delay(message);
        numEarlyChars += JSON.stringify(message).length;
        if (numEarlyChars > MAX_EARLY_CHARS) return this.remove(port, client);
      }
      const { modelIds, refusal } = await admission;
      if (refusal === null) client.receive(message, modelIds);
      else client.refuse(message, refusal);
    });
  }

  /** Disconnects all ports of an origin. */
  revoke(origin: string): void {
    for (const [port, client] of this.of(origin)) this.remove(port, client);
  }

  private async admit(origin: string): Promise<Admission> {
    try {
      const modelIds = await this.modelIds();
      const isConnected = () => this.of(origin).length > 0;
      const isAllowed = await this.consents.ask(origin, isConnected);
      const denial = `the user does not let ${origin} use this extension's model`;
      return { modelIds, refusal: isAllowed ? null : denial };
    } catch (error) {
      const refusal = `the extension could not find out whether to let ${origin} in: ${String(error)}`;
      return { modelIds: new Set(), refusal };
    }
  }

  /** Says why at the first message. */
  private turnAway(port: Port, origin: string): void {
    const client = new ExtensionPort(port, this.openHome);
    port.onMessage.addListener((message) => {
      client.refuse(message, `${origin} has ${MAX_PORTS} connections to this extension; close one`);
      client.disconnect();
    });
  }

  private remove(port: Port, client: ExtensionPort): void {
    this.clients.delete(port);
    client.disconnect();
  }

  private of(origin: string): [Port, ExtensionPort][] {
    return [...this.clients].filter(([port]) => originOf(port) === origin);
  }
}
