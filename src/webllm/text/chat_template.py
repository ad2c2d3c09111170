"""A model's chat template, compiled by the first conversation that uses it.

Jinja and the compiled template take 3 MB, which completions and benchmarks do not need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from webllm.text.jinja_template import JinjaTemplate
    from webllm.text.template_budget import TemplateLimits


@dataclass(frozen=True)  # no slots: it has a cached_property
class ChatTemplate:
    """Jinja source; `render` may be called from several threads."""

    source: str
    bos_token: str = ""
    eos_token: str = ""
    limits: TemplateLimits | None = None  # None: the default ones
    now: Callable[[], datetime] = datetime.now

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """Renders the prompt for OpenAI-style `messages`.

        `variables` are passed to the template (`enable_thinking`, `documents`). Pass what users
        wrote through `guard` first, and tokenize the result with `encode_prompt`. Raises
        TemplateError, with the template's message and line, if it fails to compile or to render.
        """
        return self._compiled.render(
            {
                "bos_token": self.bos_token,
                "eos_token": self.eos_token,
                "add_generation_prompt": add_generation_prompt,
                "messages": messages,
                "tools": tools,
                **variables,
            }
        )

    @cached_property
    def _compiled(self) -> JinjaTemplate:
        from webllm.text.jinja_template import JinjaTemplate  # see the module's docstring

        return JinjaTemplate(self.source, self.now, self.limits)
