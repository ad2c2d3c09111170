"""A conversation of two questions."""

import asyncio

from webllm import MLCEngine


async def main() -> None:
    messages = [{"role": "system", "content": "Answer in one short sentence."}]
    async with MLCEngine() as engine:
        await engine.reload("SmolLM2-135M-Instruct")
        for question in ("What is the capital of France?", "And of Italy?"):
            messages.append({"role": "user", "content": question})
            reply = await engine.chat.completions.create(messages=messages, max_tokens=40)
            answer = reply.choices[0].message.content
            messages.append({"role": "assistant", "content": answer})
            print(f"{question}\n  {answer}")


if __name__ == "__main__":
    asyncio.run(main())
