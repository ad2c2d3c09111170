"""Streams an answer, with progress while loading and speed at the end."""

import asyncio

from webllm import MLCEngine, MLCEngineConfig


async def main() -> None:
    config = MLCEngineConfig(init_progress_callback=lambda report: print(report.text))
    async with MLCEngine(config) as engine:
        await engine.reload("SmolLM2-135M-Instruct")
        stream = await engine.chat.completions.create(
            messages=[{"role": "user", "content": "Write a haiku about rain."}],
            stream=True,
            stream_options={"include_usage": True},
            temperature=0.7,
            seed=1,
            max_tokens=60,
        )
        async for chunk in stream:
            for choice in chunk.choices:
                print(choice.delta.content or "", end="", flush=True)
            if chunk.usage:
                print(f"\n{chunk.usage.extra.decode_tokens_per_s:.1f} tokens per second")


if __name__ == "__main__":
    asyncio.run(main())
