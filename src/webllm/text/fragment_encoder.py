"""Encoding of text between special tokens, for tokenizers built from GGUF metadata."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from webllm.text.special_tokens import SpecialTokens
from webllm.text.vocabulary import SPACE_MARK


@dataclass(frozen=True)
class SpacePolicy:
    """SentencePiece's spaces: `mark` writes them as U+2581, `prefix` puts one before the text and
    after each special token (llama.cpp does so; SentencePiece itself knows the start only)."""

    mark: bool = False
    prefix: bool = False


class FragmentEncoder:
    """Cuts text at special tokens and hands what is between to `encode_fragment`.

    `always` are matched in every text (user-defined tokens), `parsed` only on demand (control
    tokens); `before` and `after` are BOS and EOS where the model wants them.
    """

    def __init__(
        self,
        encode_fragment: Callable[[str], list[int]],
        always: Mapping[str, int],
        parsed: Mapping[str, int],
        affixes: tuple[list[int], list[int]],
        spaces: SpacePolicy,
    ) -> None:
        self._encode_fragment = encode_fragment
        self._spaces = spaces
        self._before, self._after = affixes
        self._always = SpecialTokens(self._marked_keys(always))
        self._all = SpecialTokens(self._marked_keys({**always, **parsed}))

    def encode(self, text: str, *, parse_special: bool, add_special: bool) -> list[int]:
        token_ids = list(self._before) if add_special else []
        special_tokens = self._all if parse_special else self._always
        after_special = True
        for part in special_tokens.split(self._marked(text)):
            if isinstance(part, int):
                token_ids.append(part)
            else:
                prefix = SPACE_MARK if self._spaces.prefix and after_special else ""
                token_ids += self._encode_fragment(prefix + part)
            after_special = isinstance(part, int)
        return token_ids + self._after if add_special else token_ids

    def _marked(self, text: str) -> str:
        return text.replace(" ", SPACE_MARK) if self._spaces.mark else text

    def _marked_keys(self, ids: Mapping[str, int]) -> dict[str, int]:
        return {self._marked(text): token_id for text, token_id in ids.items()}
