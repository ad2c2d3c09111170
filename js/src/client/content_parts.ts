// The pieces of a message, as WebLLM types them; in Python they are one struct.

import type { ImageURL } from "./api";

export interface ChatCompletionContentPartText {
  type: "text";
  text: string;
}

/** Refused by the worker: its models read text. */
export interface ChatCompletionContentPartImage {
  type: "image_url";
  image_url: ImageURL;
}

export declare namespace ChatCompletionContentPartImage {
  export type ImageURL = import("./api").ImageURL;
}

/** Refused by the worker: its models read text. */
export interface ChatCompletionContentPartInputAudio {
  type: "input_audio";
  input_audio: ChatCompletionAudioInput;
}

export type ChatCompletionContentPart =
  | ChatCompletionContentPartText
  | ChatCompletionContentPartImage
  | ChatCompletionContentPartInputAudio;

/** Base64. */
export interface ChatCompletionAudioInputWav {
  data: string;
  format: "wav";
}

/** Of one channel. */
export interface ChatCompletionAudioInputPCM {
  data: Float32Array;
  format: "pcm_f32";
  sample_rate: number;
}

export type ChatCompletionAudioInput = ChatCompletionAudioInputWav | ChatCompletionAudioInputPCM;
