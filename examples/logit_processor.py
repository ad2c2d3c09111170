"""Bans tokens that were generated before, with a logit processor."""

import asyncio
from collections.abc import MutableSequence

from webllm import MLCEngine, MLCEngineConfig

MODEL = "SmolLM2-135M-Instruct"


class NoRepeats:
    def __init__(self) -> None:
        self.said: set[int] = set()

    def process_logits(self, logits: MutableSequence[float]) -> MutableSequence[float]:
        for token in self.said:
            logits[token] = -1e9
        return logits

    def process_sampled_token(self, token: int) -> None:
        self.said.add(token)

    def reset_state(self) -> None:
        self.said.clear()


async def main() -> None:
    config = MLCEngineConfig(logit_processor_registry={MODEL: NoRepeats()})
    async with MLCEngine(config) as engine:
        await engine.reload(MODEL)
        reply = await engine.chat.completions.create(
            messages=[{"role": "user", "content": "Say no no no."}], max_tokens=30
        )
        print(reply.choices[0].message.content)


if __name__ == "__main__":
    asyncio.run(main())
