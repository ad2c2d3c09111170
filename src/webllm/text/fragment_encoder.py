"""Encodes the text between special tokens, for tokenizers made from GGUF metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from webllm.text.special_tokens import GUARD, SpecialTokens, with_guards
from webllm.text.steps import Steps
from webllm.text.vocabulary import SPACE_MARK


@dataclass(frozen=True, slots=True)
class SpacePolicy:
    """SentencePiece's spaces: `mark` writes them as U+2581, `prefix` adds one before the text.

    As in llama.cpp, `prefix` also adds one after each special token; SentencePiece does not.
    """

    mark: bool = False
    prefix: bool = False


class FragmentEncoder:
    """Splits text at special tokens and encodes the rest with `encode_fragment`.

    Tokens in `always` (user-defined ones) are matched in every text, those in `parsed` (control
    tokens) only with `parse_special`. `affixes` are the ids that `add_special` puts before and
    after the text: BOS and EOS, if the model wants them.
    """

    def __init__(
        self,
        encode_fragment: Callable[[str], Steps[list[int]]],
        always: Mapping[str, int],
        parsed: Mapping[str, int],
        affixes: tuple[list[int], list[int]],
        spaces: SpacePolicy,
    ) -> None:
        self._encode_fragment = encode_fragment
        self._spaces = spaces
        self._before, self._after = affixes
        self._always = SpecialTokens(self._marked_keys(always))
        self._parsed = SpecialTokens(self._marked_keys(parsed))
        self._all = SpecialTokens(self._marked_keys({**always, **parsed}))

    def encode(self, text: str, *, parse_special: bool, add_special: bool) -> Steps[list[int]]:
        token_ids = list(self._before) if add_special else []
        after_special = True
        for part in self._split(self._marked(text), parse_special):
            yield
            if part is None:
                continue
            if isinstance(part, int):
                token_ids.append(part)
            else:
                prefix = SPACE_MARK if self._spaces.prefix and after_special else ""
                token_ids += yield from self._encode_fragment(prefix + part)
            after_special = isinstance(part, int)
        return token_ids + self._after if add_special else token_ids

    def guard(self, text: str) -> Steps[str]:
        return with_guards(text, self._parsed.starts(self._marked(text)))

    def _split(self, text: str, parse_special: bool) -> Iterator[str | int | None]:
        if not parse_special:
            yield from self._always.split(text)
            return
        for part in self._all.split(text):
            if not isinstance(part, str) or GUARD not in part:
                yield part
            else:
                yield from self._always.split(part.replace(GUARD, ""))

    def _marked(self, text: str) -> str:
        return text.replace(" ", SPACE_MARK) if self._spaces.mark else text

    def _marked_keys(self, ids: Mapping[str, int]) -> dict[str, int]:
        return {self._marked(text): token_id for text, token_id in ids.items()}
