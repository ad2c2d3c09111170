"""The package's own chat templates, for model files without one or in place of a file's.

Each is the format that a model family was trained with: ChatML (Qwen, SmolLM, Hermes), Llama 2,
Llama 3, Gemma and Mistral. Families without a system role get the system message before the first
user turn. `ChatOptions.builtin_template` names one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from webllm.errors import TemplateError
from webllm.text.chat_template import ChatTemplate

_FIRST_SYSTEM = """\
{%- if messages[0]['role'] == 'system' -%}
{%- set system = messages[0]['content'] -%}{%- set turns = messages[1:] -%}
{%- else -%}{%- set system = '' -%}{%- set turns = messages -%}{%- endif -%}
"""

_CHATML = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""

# Earlier answers lose their thoughts; without thinking, the next one begins after an empty thought.
_QWEN3 = """\
{%- for message in messages -%}
{%- set content = message['content'] -%}
{%- if message['role'] == 'assistant' and '</think>' in content -%}
{%- set content = content.split('</think>')[-1].lstrip('\\n') -%}
{%- endif -%}
{{- '<|im_start|>' + message['role'] + '\\n' + content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if enable_thinking is defined and not enable_thinking -%}
{{- '<think>\\n\\n</think>\\n\\n' -}}
{%- endif -%}
{%- endif -%}
"""

_LLAMA3_TURNS = """\
{%- for message in turns -%}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' -}}
{{- message['content'] | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}
"""

_LLAMA3 = "{{- bos_token -}}{%- set turns = messages -%}" + _LLAMA3_TURNS

_GEMMA = (
    _FIRST_SYSTEM
    + """\
{{- bos_token -}}
{%- for message in turns -%}
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
{{- '<start_of_turn>' + role + '\\n' -}}
{%- if loop.first and system -%}{{- system + '\\n\\n' -}}{%- endif -%}
{{- message['content'] | trim + '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}
"""
)

_LLAMA2 = (
    _FIRST_SYSTEM
    + """\
{%- for message in turns -%}
{%- if message['role'] == 'assistant' -%}
{{- ' ' + message['content'] | trim + ' ' + eos_token -}}
{%- else -%}
{{- bos_token + '[INST] ' -}}
{%- if loop.first and system -%}{{- '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' -}}{%- endif -%}
{{- message['content'] | trim + ' [/INST]' -}}
{%- endif -%}
{%- endfor -%}
"""
)

_MISTRAL = (
    _FIRST_SYSTEM
    + """\
{{- bos_token -}}
{%- for message in turns -%}
{%- if message['role'] == 'assistant' -%}
{{- ' ' + message['content'] | trim + eos_token -}}
{%- else -%}
{{- '[INST] ' -}}
{%- if loop.first and system -%}{{- system + '\\n\\n' -}}{%- endif -%}
{{- message['content'] + ' [/INST]' -}}
{%- endif -%}
{%- endfor -%}
"""
)


def _chatml_with_default(system: str) -> str:
    """ChatML that says `system` where a conversation has no system message."""
    default = "<|im_start|>system\\n" + system + "<|im_end|>\\n"
    return (
        f"{{%- if messages[0]['role'] != 'system' -%}}{{{{- '{default}' -}}}}{{%- endif -%}}"
        + _CHATML
    )


def _dated_llama3(today: str) -> str:
    """Llama 3 from 3.1 on, whose system message begins with dates. `today`: a Jinja expression."""
    return f"""\
{_FIRST_SYSTEM}
{{{{- bos_token + '<|start_header_id|>system<|end_header_id|>\\n\\n' -}}}}
{{{{- 'Cutting Knowledge Date: December 2023\\nToday Date: ' + {today} + '\\n\\n' -}}}}
{{{{- system | trim + '<|eot_id|>' -}}}}
{_LLAMA3_TURNS}"""


BUILTIN_TEMPLATES = {
    "chatml": _CHATML,
    "smollm2": _chatml_with_default(
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    ),
    "qwen2": _chatml_with_default("You are a helpful assistant."),
    "qwen2.5": _chatml_with_default(
        "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    ),
    "qwen3": _QWEN3,
    "llama2": _LLAMA2,
    "llama3": _LLAMA3,
    "llama3.1": _dated_llama3("'26 Jul 2024'"),
    "llama3.2": _dated_llama3("strftime_now('%d %b %Y')"),
    "gemma": _GEMMA,
    "mistral": _MISTRAL,
}

_BY_TOKEN = (
    ("<|im_start|>", "chatml"),
    ("<|start_header_id|>", "llama3"),
    ("<start_of_turn>", "gemma"),
    ("[INST]", "mistral"),
    ("<s>", "llama2"),
)


def builtin_name(token_id: Callable[[str], int | None]) -> str | None:
    """Returns the name of the built-in template for a vocabulary; None if it has no known token.

    "llama2" is a guess: that family has no control tokens for turns.
    """
    return next((name for token, name in _BY_TOKEN if token_id(token) is not None), None)


_TRIALS = (
    ("user",),
    ("system", "user"),
    ("user", "assistant", "user"),
    ("system", "user", "assistant", "user", "assistant", "user"),
)
_TRIED_TEXTS = {
    "system": " Be brief. \n",
    "user": "\n Hello!\nHow are you? ",
    "assistant": "<think>\nA greeting.\n</think>\n\n I am \nfine. \n",
}
_TRIED_DAY = datetime(2026, 3, 4)


def equal_builtin(template: ChatTemplate) -> str | None:
    """Returns the built-in template that renders conversations as `template` does; None if none.

    Compares the prompts of several conversations that end with a user message. Those that
    `template` refuses, as some do with a system message, are not compared.
    """
    for name, source in BUILTIN_TEMPLATES.items():
        if _renders_as(replace(template, source=source, now=_tried_day), template):
            return name
    return None


def _renders_as(builtin: ChatTemplate, template: ChatTemplate) -> bool:
    own = replace(template, now=_tried_day)
    num_compared = 0
    for roles in _TRIALS:
        messages = [{"role": role, "content": _TRIED_TEXTS[role]} for role in roles]
        for enable_thinking in (True, False):
            try:
                wanted = own.render(messages, enable_thinking=enable_thinking)
            except TemplateError:
                continue
            if builtin.render(messages, enable_thinking=enable_thinking) != wanted:
                return False
            num_compared += 1
    return num_compared > 0


def _tried_day() -> datetime:
    return _TRIED_DAY
