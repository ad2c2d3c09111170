"""Text reaches the page while it is generated, also where every step is quick."""

from __future__ import annotations

from playwright.async_api import Page

ARRIVALS = """async (num_tokens) => {
  const { CreateWebWorkerMLCEngine } = await import("/client.js");
  const worker = new Worker("/worker.js", { type: "module" });
  const record = { model: "/models/smollm2.gguf", model_id: "SmolLM2" };
  const appConfig = { model_list: [record] };
  const engine = await CreateWebWorkerMLCEngine(worker, "SmolLM2", { appConfig });
  const request = { prompt: "One, two,", max_tokens: num_tokens, temperature: 0 };
  const times = [];
  const chunks = await engine.completions.create({ ...request, ignore_eos: true, stream: true });
  for await (const chunk of chunks) times.push(performance.now());
  engine.terminate();
  return times;
}"""


async def test_the_page_gets_half_of_the_text_in_half_of_the_time(page: Page) -> None:
    times = await page.evaluate(ARRIVALS, 64)
    assert len(times) >= 60
    middle = (times[0] + times[-1]) / 2
    come = sum(time < middle for time in times)
    assert come > len(times) / 4, f"{come} of {len(times)} chunks came in half of the time"
