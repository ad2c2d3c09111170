"""Chat templates for model files without one, chosen by the vocabulary's control tokens.

Each is the format that a model family was trained with: ChatML (Qwen, SmolLM, Hermes), Llama 2,
Llama 3, Gemma and Mistral. Families without a system role get the system message before the first
user turn.
"""

from __future__ import annotations

from collections.abc import Callable

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

_LLAMA3 = """\
{{- bos_token -}}
{%- for message in messages -%}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' -}}
{{- message['content'] | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}
"""

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

BUILTIN_TEMPLATES = {
    "chatml": _CHATML,
    "llama2": _LLAMA2,
    "llama3": _LLAMA3,
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
