"""Streams an answer without async, up to its first full stop."""

from webllm import create_blocking_mlc_engine


def main() -> None:
    with create_blocking_mlc_engine("SmolLM2-135M-Instruct") as engine:
        stream = engine.chat.completions.create(
            messages=[{"role": "user", "content": "What is a glacier?"}],
            stream=True,
            max_tokens=100,
        )
        for chunk in stream:
            piece = chunk.choices[0].delta.content or ""
            print(piece, end="", flush=True)
            if "." in piece:
                break  # ends the answer
        print(f"\n{engine.runtime_stats_text()}")


if __name__ == "__main__":
    main()
