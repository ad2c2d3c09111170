"""Asks several questions at once. Their answers share the model's steps."""

import asyncio

from webllm import MLCEngine

QUESTIONS = ("What colour is the sky?", "How many legs has a spider?", "Is ice cold?")


async def ask(engine: MLCEngine, question: str) -> None:
    reply = await engine.chat.completions.create(
        messages=[{"role": "user", "content": question}], max_tokens=30, temperature=0
    )
    print(f"{question}\n  {reply.choices[0].message.content}")


async def main() -> None:
    async with MLCEngine() as engine:
        await engine.reload("SmolLM2-135M-Instruct")
        await asyncio.gather(*(ask(engine, question) for question in QUESTIONS))


if __name__ == "__main__":
    asyncio.run(main())
