// The models to choose from: files in GGUF in this folder, or hf:… and https://… with their hosts in the
// manifest's connect-src.

export const model_list = [
  { model_id: "SmolLM2 135M", model: "/models/smollm2.gguf" },
  { model_id: "Gemma 3 270M", model: "/models/gemma3.gguf" },
];
