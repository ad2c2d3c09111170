// Other engines, if they are served beside this page. The site itself has none.

import type { Contender } from "./contender";

export interface Peers {
  contenders: Contender[];
  mlcModelIds: string[];
}

export async function loadPeers(): Promise<Peers> {
  const [wllama, webLlm] = (await Promise.all(
    ["wllama.js", "web_llm.js"].map(
      (name) => import(new URL(`peers/${name}`, import.meta.url).href),
    ),
  )) as [typeof import("./peers/wllama"), typeof import("./peers/web_llm")];
  return {
    contenders: [...wllama.contenders, ...webLlm.contenders],
    mlcModelIds: webLlm.modelIds,
  };
}
