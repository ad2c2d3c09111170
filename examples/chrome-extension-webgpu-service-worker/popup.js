// Asks a model, about the open page if that is wanted. The engine stays as the popup is closed.

import { CreateExtensionServiceWorkerMLCEngine } from "./webllm/client.js";

const MAX_CHARS = 6000; // of the page, so that it fits into the model's context window
const MAX_TOKENS = 400; // of an answer
const [form, question, page, ask, status, answer] = [
  ...["form", "question", "page", "ask", "status", "answer"],
].map((id) => document.getElementById(id));

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  ask.disabled = true;
  try {
    await say(page.checked ? `${await pageText()}\n\n${question.value}` : question.value);
  } catch (error) {
    status.textContent = String(error);
  }
  ask.disabled = false;
});

async function say(content) {
  answer.textContent = "";
  const messages = [{ role: "user", content }];
  const request = { messages, max_tokens: MAX_TOKENS, temperature: 0.3, stream: true };
  for await (const chunk of await engine.chat.completions.create(request)) {
    answer.textContent += chunk.choices[0]?.delta.content ?? "";
  }
}

/** Chrome allows this in the tab where the popup was opened by its button. */
async function pageText() {
  const [tab] = await chrome.tabs.query({ active: true, currentWindow: true });
  const [{ result }] = await chrome.scripting.executeScript({
    target: { tabId: tab.id },
    func: () => (document.querySelector("article, main") ?? document.body).innerText,
  });
  return `The page “${tab.title}” says:\n\n${result.slice(0, MAX_CHARS)}`;
}

const model_list = [{ model_id: "mine", model: "/models/model.gguf" }]; // or hf:…, https://…
let engine;
try {
  engine = await CreateExtensionServiceWorkerMLCEngine("mine", {
    appConfig: { model_list, cacheBackend: "none" },
    initProgressCallback: ({ text }) => (status.textContent = text),
  });
  ask.disabled = false;
} catch (error) {
  status.textContent = String(error);
}
