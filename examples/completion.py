"""Continues a text on the CPU, without a chat template."""

import asyncio

from webllm import MLCEngine, MLCEngineConfig


async def main() -> None:
    async with MLCEngine(MLCEngineConfig(device="cpu")) as engine:
        await engine.reload("SmolLM2-135M-Instruct")
        completion = await engine.completions.create(
            prompt="Once upon a time", echo=True, max_tokens=40, temperature=0, stop="\n"
        )
        print(completion.choices[0].text)
        print(completion.choices[0].finish_reason)


if __name__ == "__main__":
    asyncio.run(main())
