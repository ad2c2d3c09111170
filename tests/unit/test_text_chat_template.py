"""Chat templates: real ones, Hugging Face's environment, built-in ones, errors with their line."""

import json
import subprocess
import sys
from datetime import datetime
from typing import Any, get_args

import jinja2
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from text_references import byte_level_metadata, train_byte_level, train_sentencepiece

from webllm.errors import CheckpointError, TemplateError
from webllm.model_record import BuiltinTemplate
from webllm.text.builtin_templates import BUILTIN_TEMPLATES, builtin_name, equal_builtin
from webllm.text.chat_template import ChatTemplate
from webllm.text.gguf_tokenizer import tokenizer_from_gguf
from webllm.text.model_template import template_from_config, template_from_gguf

TALK = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "yo"},
    {"role": "user", "content": "ok"},
]
# As in the GGUF file of SmolLM2-135M-Instruct.
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# The constructs of the large tool-calling templates (Qwen, Llama 3.1, SmolLM3), in one.
TOOLS = """\
{%- macro describe(tool, depth=0) -%}
  {{- '  ' * depth ~ tool.name }}: {{ tool.description | default('-', true) | trim | upper }}
  {%- for name, value in (tool.parameters.properties or {}) | dictsort %}
{{ name }}={{ value | tojson }}{% if not loop.last %}, {% endif %}
  {%- endfor %}
{%- endmacro %}
{%- set ns = namespace(last=-1, seen=[]) %}
{%- for message in messages[::-1] %}
  {%- set index = (messages | length - 1) - loop.index0 %}
  {%- if message.role == 'user' and message.content is string and ns.last < 0 %}
    {%- set ns.last = index %}
    {%- break %}
  {%- endif %}
{%- endfor %}
{%- if tools is defined and tools is not none %}
    {%- for tool in tools | map(attribute='function') | selectattr('name') | list %}
    {{- describe(tool, loop.index0) }}
    {%- endfor %}
{{ tools | tojson(indent=2) }}
{%- endif %}
{% for message in messages if message.role != 'system' -%}
    {%- set content = message['content'].split('</think>')[-1].lstrip('\\n') %}
    {%- set ns.seen = ns.seen + [message.role] %}
    {%- if loop.index0 % 2 == 0 and not content.startswith('x') %}
<{{ '%s-%02d' % (message.role, loop.index) }}>{% generation %}{{ content }}{% endgeneration %}
    {%- elif 'yo' in content or content | length > 3 %}
[{{ [content, message.get('name', 'n')] | join('|') }}]{{ content | replace('y', 'Y') }}
    {%- endif %}
{%- endfor %}
{% filter upper %}{{ ns.seen | unique | join(',') ~ ns.last }}{% endfilter %}
{% set block %}{{ messages[0].content }}!{% endset %}{{ block * 2 }}
{{- {'a': [1, 2.5, none, true], 'é': "<&>'"} | tojson }} {{ 7 // 2 }} {{ 2 ** 10 }}
{{- messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join(' ') }}
{{- '{}/{:>3}'.format('f', 7) }} {{ missing }} {{ [1, 2][5] is undefined }} {{ (1, 'b') }}
"""
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": " Weather <b> ",
        "parameters": {"type": "object", "properties": {"z": {"type": "string"}, "a": {"é": 1}}},
    },
}


def _hugging_face(source: str, **variables: Any) -> str:
    """Renders with Jinja as `transformers` does, without our rewriting and budget."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(
        value, ensure_ascii=False, indent=indent
    )
    return environment.from_string(source).render(**variables)


@pytest.mark.parametrize("tools", [None, [TOOL]])
def test_rendering_is_that_of_hugging_face(tools: list[Any] | None) -> None:
    plain = TOOLS.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    expected = _hugging_face(plain, messages=TALK, tools=tools)
    assert ChatTemplate(TOOLS).render(TALK, tools=tools) == expected


def test_smollm2() -> None:
    assert ChatTemplate(SMOLLM2).render(TALK) == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
        "<|im_start|>assistant\nyo<|im_end|>\n<|im_start|>user\nok<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert ChatTemplate(SMOLLM2).render(TALK[1:2], add_generation_prompt=False) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
    )


CHATML_PROMPT = (
    "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
    "<|im_start|>assistant\nyo<|im_end|>\n<|im_start|>user\nok<|im_end|>\n<|im_start|>assistant\n"
)


def _dated_prompt(today: str) -> str:
    dates = f"Cutting Knowledge Date: December 2023\nToday Date: {today}\n\n"
    return BUILTIN_PROMPTS["llama3"].replace(
        "system<|end_header_id|>\n\n", f"system<|end_header_id|>\n\n{dates}"
    )


BUILTIN_PROMPTS = {
    "chatml": CHATML_PROMPT,
    "smollm2": CHATML_PROMPT,
    "qwen2": CHATML_PROMPT,
    "qwen2.5": CHATML_PROMPT,
    "qwen3": CHATML_PROMPT,
    "llama2": "<B>[INST] <<SYS>>\nS\n<</SYS>>\n\nhi [/INST] yo <E><B>[INST] ok [/INST]",
    "llama3": "<B><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nyo<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nok<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "gemma": "<B><start_of_turn>user\nS\n\nhi<end_of_turn>\n<start_of_turn>model\nyo<end_of_turn>\n"
    "<start_of_turn>user\nok<end_of_turn>\n<start_of_turn>model\n",
    "mistral": "<B>[INST] S\n\nhi [/INST] yo<E>[INST] ok [/INST]",
}
BUILTIN_PROMPTS["llama3.1"] = _dated_prompt("26 Jul 2024")
BUILTIN_PROMPTS["llama3.2"] = _dated_prompt("05 Feb 2026")


@pytest.mark.parametrize("name", BUILTIN_TEMPLATES)
def test_builtin_templates(name: str) -> None:
    template = _builtin(name)
    assert template.render(TALK) == BUILTIN_PROMPTS[name]
    assert "S\n" not in template.render(TALK[1:])
    assert equal_builtin(template) == name


def _builtin(name: str) -> ChatTemplate:
    source = BUILTIN_TEMPLATES[name]
    return ChatTemplate(source, bos_token="<B>", eos_token="<E>", now=lambda: datetime(2026, 2, 5))


def test_options_name_every_builtin_template() -> None:
    assert get_args(BuiltinTemplate) == tuple(BUILTIN_TEMPLATES)


@pytest.mark.parametrize(
    ("name", "system"),
    [
        ("smollm2", "You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
        ("qwen2", "You are a helpful assistant."),
        ("qwen2.5", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."),
    ],
)
def test_builtin_templates_with_a_system_message_of_their_own(name: str, system: str) -> None:
    prompt = _builtin(name).render(TALK[1:2])
    turns = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert prompt == f"<|im_start|>system\n{system}<|im_end|>\n{turns}"


def test_qwen3_without_thinking() -> None:
    thought = {"role": "assistant", "content": "<think>\nA\n</think>\n\nyo"}
    prompt = _builtin("qwen3").render([*TALK[:2], thought, TALK[3]], enable_thinking=False)
    assert prompt == CHATML_PROMPT + "<think>\n\n</think>\n\n"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (SMOLLM2, "smollm2"),
        # Another spelling of Gemma's, which refuses a system message.
        (
            "{{ bos_token }}{% for m in messages %}"
            "{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
            "<start_of_turn>{{ m['role'] | replace('assistant', 'model') }}\n"
            "{{ m['content'] | trim }}<end_of_turn>\n{{ '' }}{% endfor %}"
            "{{ '<start_of_turn>model\n' if add_generation_prompt }}",
            "gemma",
        ),
        (SMOLLM2.replace("SmolLM", "Eve"), None),
        (SMOLLM2.replace("message['content']", "message['content'].strip()"), None),
        (BUILTIN_TEMPLATES["llama3"].replace("bos_token", "''"), None),
        ("{{ raise_exception('for tools only') }}", None),
        ("{{ no.such.thing }}", None),
    ],
)
def test_the_builtin_template_of_a_file_renders_the_same(source: str, name: str | None) -> None:
    assert equal_builtin(ChatTemplate(source, bos_token="<B>", eos_token="<E>")) == name


@pytest.mark.parametrize(
    ("tokens", "name"),
    [
        ({"<|im_start|>", "<s>"}, "chatml"),
        ({"<|start_header_id|>"}, "llama3"),
        ({"<start_of_turn>"}, "gemma"),
        ({"[INST]", "<s>"}, "mistral"),
        ({"<s>"}, "llama2"),
        (set(), None),
    ],
)
def test_a_builtin_template_is_chosen_by_its_tokens(tokens: set[str], name: str | None) -> None:
    assert builtin_name(lambda text: 1 if text in tokens else None) == name


def test_templates_of_gguf_files() -> None:
    metadata = byte_level_metadata(train_byte_level())
    tokenizer = tokenizer_from_gguf(metadata)
    sources = {
        "tokenizer.chat_template": "{{ bos_token ~ eos_token }}",
        "tokenizer.chat_template.tool_use": "T",
    }
    own = template_from_gguf(metadata | sources, tokenizer)
    assert own is not None
    assert own.render([]) == "<|im_start|><|im_end|>"
    named = template_from_gguf(metadata | sources, tokenizer, "tool_use")
    assert named is not None
    assert named.source == "T"
    builtin = template_from_gguf(metadata, tokenizer)
    assert builtin is not None
    assert builtin.render(TALK) == BUILTIN_PROMPTS["chatml"]
    replaced = template_from_gguf(metadata | sources, tokenizer, builtin="chatml")
    assert replaced == builtin
    llama = train_sentencepiece()
    guess = template_from_gguf(llama, tokenizer_from_gguf(llama))
    assert guess is not None
    assert guess.render(TALK[1:2]) == "<s>[INST] hi [/INST]"
    with pytest.raises(CheckpointError, match="chat_template"):
        template_from_gguf({"tokenizer.chat_template": 1}, tokenizer)


def test_templates_of_tokenizer_configs() -> None:
    tokenizer = tokenizer_from_gguf(byte_level_metadata(train_byte_level()))
    several = [{"name": "default", "template": "D"}, {"name": "rag", "template": "{{ eos_token }}"}]
    config = json.dumps({"chat_template": several, "eos_token": {"content": "E"}}).encode()
    default, rag = (template_from_config(config, tokenizer, name) for name in (None, "rag"))
    assert default is not None
    assert rag is not None
    assert (default.source, rag.render([])) == ("D", "E")
    builtin = template_from_config(b"{}", tokenizer)
    assert builtin is not None
    assert builtin.source == BUILTIN_TEMPLATES["chatml"]
    with pytest.raises(CheckpointError, match="config"):
        template_from_config(b'{"chat_template": 1}', tokenizer)


def test_deeply_nested_input_is_no_problem_of_ours() -> None:
    deep: list[Any] = []
    for _ in range(5_000):
        deep = [deep]
    template = ChatTemplate("{{ messages | length }}{% if dump %}{{ deep | tojson }}{% endif %}")
    assert template.render(TALK, deep=deep, dump=False) == "4"
    with pytest.raises(TemplateError, match="RecursionError"):
        template.render(TALK, deep=deep, dump=True)


def test_what_a_body_sets_is_no_argument_of_the_methods_called_in_it() -> None:
    """GigaChat3's template does this: its loop over lines sets a namespace first."""
    source = """\
{%- for message in messages -%}
{%- set seen = namespace(lines=[]) -%}
{%- for line in message.content.split(',') -%}
{%- set seen.lines = seen.lines + ['// ' ~ line.strip()] -%}
{%- endfor -%}
{{ seen.lines | join(' ') }}
{%- endfor -%}"""
    messages = [{"role": "user", "content": "a, b"}]
    assert ChatTemplate(source).render(messages) == "// a // b"


def test_variables_and_dates() -> None:
    template = ChatTemplate(
        "{{ strftime_now('%d %b %Y') }} {{ enable_thinking }} {{ add_generation_prompt }}",
        now=lambda: datetime(2025, 1, 2),
    )
    assert template.render([], enable_thinking=False) == "02 Jan 2025 False True"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("\n{{ raise_exception('roles must alternate') }}", "line 2: roles must alternate"),
        ("a\n\n{{ nothing.at.all }}", "line 3: 'nothing' is undefined"),
        ("\n{% if %}", "line 2: Expected an expression"),
        ("{{ 1 / 0 }}", "line 1: ZeroDivisionError"),
        ("{{ 1 | nofilter }}", "line 1: No filter named 'nofilter'"),
        ("{% include 'x' %}", "line 1"),
        ("{{ messages | tojson(indent=99) }}", "indentation of 99"),
        ("{{ strftime_now('%1000000000Y') }}", "date format"),
        ("{{ x | tojson }}", "line 1: TypeError"),
        ("{% for a in [1] %}" * 30 + "{% endfor %}" * 30, "SyntaxError"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "RecursionError"),
        ("x" * 200_000, "200000 characters"),
        ("{{a}}" * 11_000, "more than 10000 parts"),
        ("{{ 0x" + "f" * 9_000 + " }}", "a number is too large"),
        ("{% autoescape true %}{% endautoescape %}", "autoescape"),
    ],
)
def test_every_failure_is_a_template_error_with_its_line(source: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        ChatTemplate(source).render(TALK)
    assert message in str(caught.value)


def test_nothing_of_jinja_is_imported_before_the_first_chat() -> None:
    program = (
        "import sys; from webllm.engine.engine import MLCEngine;"
        "from webllm.text.chat_template import ChatTemplate; t = ChatTemplate('{{ messages[0] }}');"
        "assert 'jinja2' not in sys.modules; print(t.render(['hi']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "hi\n", done.stderr


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        (
            "{% for k, g in x | groupby('k') %}{{ k }}{{ g | map(attribute='v') | join }},"
            "{% endfor %}",
            "A13,b2,",
        ),
        ("{{ (x | groupby('k', case_sensitive=true))[0].grouper }}", "A"),
        ("{{ (x | groupby('k') | first).list | length }}", "2"),
        ("{{ x | groupby('none', default='-') | map('first') | join }}", "-"),
        ("{{ 42.55 | round }} {{ 42.55 | round(1, 'floor') }} {{ 7 | round }}", "43.0 42.5 7"),
        ("{{ [1, 2.5] | sum }} {{ x | sum(attribute='v') }} {{ [] | sum(start=3) }}", "3.5 6 3"),
        ("{{ [[1], [2]] | sum(start=[]) }}", "[1, 2]"),
        ("{{ range(5) | batch(2) | list }}", "[[0, 1], [2, 3], [4]]"),
        ("{{ range(3) | batch(2, '-') | list }}", "[[0, 1], [2, '-']]"),
        ("{{ '%s has %d' | format('a', 3) }} {{ '%(b)s' | format(b=1) }}", "a has 3 1"),
        ("{{ 'one two  three' | wordcount }}", "3"),
    ],
)
def test_filters_are_jinjas(source: str, shown: str) -> None:
    x = [{"k": "A", "v": 1}, {"k": "b", "v": 2}, {"k": "a", "v": 3}]
    assert jinja2.Template(source).render(x=x) == shown
    assert ChatTemplate(source).render([], x=x) == shown
