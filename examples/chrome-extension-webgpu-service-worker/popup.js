// A chat with a model, about the open page if that is wanted. It is kept, and an answer goes on when the
// popup is opened again.

import { createEngine } from "./engine.js";
import { model_list } from "./models.js";

const MAX_CHARS = 6000; // of a page, so that it fits into the model's context window
const MAX_TOKENS = 400; // of an answer
const [model, clear, log, status, form, question, page, stop, ask] = [
  ...["model", "clear", "log", "status", "form", "question", "page", "stop", "ask"],
].map((id) => document.getElementById(id));

const chat = JSON.parse(localStorage.getItem("chat")) ?? { model: "", messages: [] };
let engine;

model.append(...model_list.map(({ model_id }) => new Option(model_id)));
if (model_list.some(({ model_id }) => model_id === chat.model)) model.value = chat.model;
for (const { role, content } of chat.messages) show(role, content);
await attempt(load);
if (engine && chat.sessionId) await attempt(answer);

model.addEventListener("change", () => attempt(load));
stop.addEventListener("click", () => engine.interruptGenerate());
clear.addEventListener("click", () => {
  keep({ messages: [] });
  log.replaceChildren();
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(send);
});

async function load() {
  const config = {
    appConfig: { model_list, cacheBackend: "none" }, // the files are on this disk already
    initProgressCallback: ({ text }) => (status.textContent = text),
  };
  keep({ model: model.value });
  if (engine) await engine.reload(model.value);
  else engine = await createEngine(model.value, config);
}

async function send() {
  const message = { role: "user", content: question.value };
  if (page.checked) message.page = await pageText();
  // The request's name in the engine's journal, by which it goes on with an answer.
  keep({ messages: [...chat.messages, message], sessionId: crypto.randomUUID() });
  show(message.role, message.content);
  form.reset();
  await answer();
}

/** Asked again with the same session, the engine gives what there is of the answer, and goes on. */
async function answer() {
  const { sessionId } = chat;
  const line = show("assistant", "");
  stop.hidden = false;
  try {
    const chunks = await engine.chat.completions.create({
      messages: toSend(),
      max_tokens: MAX_TOKENS,
      temperature: 0.3,
      stream: true,
      extra_body: { resumable: { enabled: true, sessionId } },
    });
    for await (const chunk of chunks) {
      line.textContent += chunk.choices[0]?.delta.content ?? "";
      log.scrollTop = log.scrollHeight;
    }
  } finally {
    const message = { role: "assistant", content: line.textContent };
    keep({ messages: [...chat.messages, message], sessionId: undefined });
  }
  await engine.deleteResumableSession(sessionId);
}

/** The messages, with the page that was asked about last. */
function toSend() {
  const last = chat.messages.findLastIndex((each) => each.page);
  return chat.messages.map(({ role, content, page }, index) => ({
    role,
    content: index === last ? `${page}\n\n${content}` : content,
  }));
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

function show(role, text) {
  const line = document.createElement("p");
  line.className = role;
  line.textContent = text;
  log.append(line);
  log.scrollTop = log.scrollHeight;
  return line;
}

function keep(changes) {
  Object.assign(chat, changes);
  localStorage.setItem("chat", JSON.stringify(chat));
}

/** Acts while nothing else can be asked for, and says what fails. */
async function attempt(act) {
  for (const each of [model, clear, ask]) each.disabled = true;
  status.textContent = "";
  try {
    await act();
    status.textContent = "";
  } catch (error) {
    status.textContent = String(error);
  }
  stop.hidden = true;
  for (const each of [model, clear]) each.disabled = false;
  ask.disabled = !engine;
}
