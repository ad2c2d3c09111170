"""Runs a model in a process of its own, so that this one can do something else meanwhile."""

import asyncio

from webllm import create_worker_process


async def show_that_time_passes() -> None:
    while True:
        await asyncio.sleep(0.1)
        print(".", end="", flush=True)


async def main() -> None:
    async with await create_worker_process("SmolLM2-135M-Instruct") as engine:
        dots = asyncio.create_task(show_that_time_passes())
        reply = await engine.chat.completions.create(
            messages=[{"role": "user", "content": "Explain what a process is."}], max_tokens=100
        )
        dots.cancel()
        print(f"\n{reply.choices[0].message.content}")


if __name__ == "__main__":
    asyncio.run(main())
