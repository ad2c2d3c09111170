"""Renders a model's chat template, Jinja source from an untrusted file, to a prompt.

The environment is that of `transformers.PreTrainedTokenizer.apply_chat_template`: block trimming,
loop controls, `raise_exception`, `strftime_now`, `tojson` without HTML escapes, the `generation`
tag. The template runs in a sandbox with limits (`template_sandbox`, `template_budget`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from types import CodeType, TracebackType
from typing import Any, NoReturn

import jinja2

from webllm.errors import TemplateError
from webllm.text.template_budget import Budget, TemplateLimits, count_chars
from webllm.text.template_sandbox import TemplateSandbox

_MAX_DATE_FORMAT = 100
_MAX_MESSAGE = 1000


class JinjaTemplate:
    """A compiled chat template; `render` may be called from several threads."""

    def __init__(
        self, source: str, now: Callable[[], datetime], limits: TemplateLimits | None
    ) -> None:
        """Compiles `source`; raises TemplateError if it cannot be compiled."""
        self._limits = limits or TemplateLimits()
        self._now = now
        self._code = _compile(source, self._limits)

    def render(self, variables: Mapping[str, Any]) -> str:
        """Renders the template; raises TemplateError with its message and line if that fails."""
        sandbox = TemplateSandbox(Budget(self._limits, count_chars(variables)))
        globals_ = sandbox.make_globals(
            {"raise_exception": _raise_exception, "strftime_now": self._strftime_now}
        )
        template = jinja2.Template.from_code(sandbox, self._code, globals_)
        context = template.new_context(dict(variables))
        try:
            return "".join(template.root_render_func(context))
        except Exception as error:  # a template can raise any exception
            line = _line(template, error.__traceback__)
            raise TemplateError(_message(error, line)) from error

    def _strftime_now(self, date_format: str) -> str:
        if len(date_format) > _MAX_DATE_FORMAT or re.search(r"%[^a-zA-Z%]*\d", date_format):
            raise jinja2.TemplateRuntimeError(f"date format {date_format[:20]!r} is not allowed")
        return self._now().strftime(date_format)


def _compile(source: str, limits: TemplateLimits) -> CodeType:
    if len(source) > limits.source_chars:
        raise TemplateError(
            f"the chat template has {len(source)} characters; {limits.source_chars} are allowed"
        )
    try:
        return TemplateSandbox(Budget(limits, 0)).compile(source)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(_message(error, error.lineno)) from error
    except (Exception, MemoryError) as error:  # Python's compiler has limits, too
        raise TemplateError(_message(error, None)) from error


@jinja2.pass_environment
def _raise_exception(sandbox: TemplateSandbox, message: Any) -> NoReturn:
    raise jinja2.TemplateError(sandbox.budget.text(message))


def _message(error: BaseException, line: int | None) -> str:
    where = f"chat template, line {line}" if line else "chat template"
    kind = "" if isinstance(error, jinja2.TemplateError) else f"{type(error).__name__}: "
    text = str(error)
    if len(text) > _MAX_MESSAGE:
        text = f"{text[:_MAX_MESSAGE]}… ({len(text)} characters)"
    return f"{where}: {kind}{text}"


def _line(template: jinja2.Template, traceback: TracebackType | None) -> int | None:
    """The line of the template's source in which an error was raised, from its innermost frame."""
    line = None
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__jinja_template__") is template:
            line = template.get_corresponding_lineno(traceback.tb_lineno)
        traceback = traceback.tb_next
    return line
