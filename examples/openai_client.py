"""Uses OpenAI's client with a model in this process, without a server or a key."""

import asyncio

from webllm import MLCEngine, openai_client

MODEL = "SmolLM2-135M-Instruct"


async def main() -> None:
    async with MLCEngine() as engine:
        await engine.reload(MODEL)
        client = openai_client(engine)
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Write a haiku about rain."}],
            max_tokens=60,
            stream=True,
        )
        async for chunk in stream:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()


if __name__ == "__main__":
    asyncio.run(main())
