// Prompts with a given number of tokens. All begin differently, so that no prefix is reused.

/** Each is one token in the usual vocabularies, with the space in front of it. */
const WORDS =
  "time people way day man thing woman life child world school state family student group country " +
  "problem hand part place case week company system program question work number night point home " +
  "water room mother area money story fact month lot right study book eye job word business issue " +
  "side kind head house service friend father power hour game line end member law car city name";

const words = WORDS.split(" ");
let seed = Date.now() >>> 0;

export function nextPrompt(numTokens: number): string {
  return Array.from({ length: numTokens }, () => ` ${words[random(words.length)]}`).join("");
}

function random(below: number): number {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return Math.floor((seed / 2 ** 32) * below);
}
