"""MLC's `conv_template`: prompts written by hand from mlc-llm's templates and its documentation."""

from typing import Any

import pytest

from webllm.errors import ConfigError, RequestError
from webllm.text.conv_template import (
    conv_template_from_json,
    describe_tools,
    hermes_system_message,
)
from webllm.text.mlc_templates import MLC_TEMPLATES
from webllm.text.special_tokens import GUARD

LLAMA2: dict[str, Any] = {
    "name": "llama-2",
    "system_template": "[INST] <<SYS>>\n{system_message}\n<</SYS>>\n\n",
    "system_message": "Be good.",
    "system_prefix_token_ids": [1],
    "add_role_after_system_message": False,
    "roles": {"user": "<s>[INST]", "assistant": "[/INST]", "tool": "[INST]"},
    "role_templates": {
        "user": "{user_message}",
        "assistant": "{assistant_message}",
        "tool": "{tool_message}",
    },
    "messages": [],
    "seps": [" ", " </s>"],
    "role_content_sep": " ",
    "role_empty_sep": " ",
    "stop_str": ["[INST]"],
    "stop_token_ids": [2],
    "function_string": "",
    "use_function_calling": False,
}
LLAMA3: dict[str, Any] = {
    "system_template": "<|start_header_id|>system<|end_header_id|>\n\n{system_message}<|eot_id|>",
    "system_message": "Be good.",
    "roles": {
        "user": "<|start_header_id|>user",
        "assistant": "<|start_header_id|>assistant",
        "tool": "<|start_header_id|>ipython",
    },
    "seps": ["<|eot_id|>"],
    "role_content_sep": "<|end_header_id|>\n\n",
    "role_empty_sep": "<|end_header_id|>\n\n",
}
CHATML: dict[str, Any] = {
    "system_template": "<|im_start|>system\n{system_message}<|im_end|>\n",
    "system_message": "Be good.",
    "roles": {"user": "<|im_start|>user", "assistant": "<|im_start|>assistant"},
    "seps": ["<|im_end|>\n"],
    "role_content_sep": "\n",
    "role_empty_sep": "\n",
}
GEMMA: dict[str, Any] = {
    "system_template": "<bos>{system_message}",
    "roles": {"user": "<start_of_turn>user", "assistant": "<start_of_turn>model"},
    "seps": ["<end_of_turn>\n"],
    "role_content_sep": "\n",
    "role_empty_sep": "\n",
}
MISTRAL: dict[str, Any] = {
    "system_template": "[INST] {system_message}",
    "system_message": "Be good.",
    "add_role_after_system_message": False,
    "roles": {"user": "[INST]", "assistant": "[/INST]", "tool": "[INST]"},
    "seps": [" "],
    "role_content_sep": " ",
    "role_empty_sep": "",
}
GORILLA: dict[str, Any] = {
    "roles": {"user": "USER", "assistant": "ASSISTANT", "tool": "USER"},
    "role_templates": {"user": "<<question>> {user_message} <<function>> {function_string}"},
    "seps": ["\n", "</s>"],
    "role_content_sep": ": ",
    "role_empty_sep": ":",
}
TALK = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "yo"},
    {"role": "user", "content": "ok"},
]
PROMPTS = [
    (
        LLAMA2,
        "[INST] <<SYS>>\nBe good.\n<</SYS>>\n\nhi [/INST] yo </s><s>[INST] ok [/INST] ",
    ),
    (
        LLAMA3,
        "<|start_header_id|>system<|end_header_id|>\n\nBe good.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nyo<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nok<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    (
        CHATML,
        "<|im_start|>system\nBe good.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
        "<|im_start|>assistant\nyo<|im_end|>\n<|im_start|>user\nok<|im_end|>\n"
        "<|im_start|>assistant\n",
    ),
    (
        GEMMA,
        "<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\nyo<end_of_turn>\n"
        "<start_of_turn>user\nok<end_of_turn>\n<start_of_turn>model\n",
    ),
    (MISTRAL, "[INST] Be good.hi [/INST] yo [INST] ok [/INST]"),
]


@pytest.mark.parametrize(("value", "prompt"), PROMPTS)
def test_prompts_of_mlc_templates(value: dict[str, Any], prompt: str) -> None:
    template = conv_template_from_json(value)
    assert template.render(TALK) == prompt
    given = [{"role": "system", "content": "Be good."}, *TALK]
    without_default = conv_template_from_json(value | {"system_message": ""})
    if value is not GEMMA:
        assert without_default.render(given) == prompt


def test_a_system_message_replaces_the_default() -> None:
    template = conv_template_from_json(CHATML)
    prompt = template.render([{"role": "system", "content": "New."}, TALK[0]])
    assert "New." in prompt
    assert "Be good." not in prompt


def test_without_a_system_prompt_the_first_role_is_written() -> None:
    value = LLAMA2 | {"system_template": "{system_message}", "system_message": ""}
    assert conv_template_from_json(value).render(TALK[:1]) == "<s>[INST] hi [/INST] "


def test_messages_of_the_template_come_first_and_none_is_an_open_turn() -> None:
    value = CHATML | {"system_message": "", "messages": [["user", "a"], ["assistant", "b"]]}
    template = conv_template_from_json(value)
    assert template.render(TALK[:1], add_generation_prompt=False).endswith(
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
        "<|im_start|>user\nhi<|im_end|>\n"
    )
    opened = template.render([{"role": "assistant", "content": None}], add_generation_prompt=False)
    assert opened.endswith("<|im_start|>assistant\n")


def test_the_last_function_placeholder_is_filled_and_others_vanish() -> None:
    template = conv_template_from_json(GORILLA)
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    functions = describe_tools(tools)
    assert functions == '[{"name": "f", "parameters": {}}]'
    assert template.render(TALK, function_string=functions) == (
        "USER: <<question>> hi <<function>> \nASSISTANT: yo</s>"
        f"USER: <<question>> ok <<function>> {functions}\nASSISTANT:"
    )


def test_placeholders_in_what_a_user_wrote_are_text() -> None:
    template = conv_template_from_json(GORILLA)
    message = {"role": "user", "content": "{function_string} {user_message}"}
    assert template.render([message], function_string="F {user_message}") == (
        "USER: <<question>> {function_string} {user_message} <<function>> F {user_message}\n"
        "ASSISTANT:"
    )


def test_tools() -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]
    assert describe_tools(tools, "none") == describe_tools([]) == ""
    choice = {"type": "function", "function": {"name": "g"}}
    assert describe_tools(tools, choice) == '{"name": "g"}'
    with pytest.raises(RequestError, match="'h'"):
        describe_tools(tools, {"type": "function", "function": {"name": "h"}})


def test_parts_and_tool_messages() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": parts},
        {"role": "tool", "content": "42"},
    ]
    assert conv_template_from_json(MISTRAL).render(messages) == (
        "[INST] Be good.ab [INST] 42 [/INST]"
    )


@pytest.mark.parametrize(
    "message",
    [
        {"role": "tool", "content": "x"},
        {"role": "developer", "content": "x"},
        {"content": "x"},
        {"role": "user", "content": [{"type": "image_url", "image_url": "x"}]},
        {"role": "user", "content": [{"type": "text"}]},
    ],
)
def test_messages_it_cannot_render(message: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        conv_template_from_json(CHATML).render([message])


QWEN3 = CHATML | {"system_message": "", "strip_reasoning_in_history": True}
THOUGHT = "<think>\nhm </think> no\n</think>\n\nyo"


def _answer(content: object) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (THOUGHT, "yo"),
        (f"<think>a<{GUARD}/think>\nyo", "yo"),  # where it is a control token
        ("</think>yo", "yo"),
        ("<think>yo", "<think>yo"),
        ("\nyo", "\nyo"),
    ],
)
def test_answers_before_the_last_question_lose_their_thoughts(answer: str, kept: str) -> None:
    ask = {"role": "user", "content": "hi"}
    talk = [ask, _answer(answer), ask, _answer(answer), ask, _answer(answer)]
    plain = [ask, _answer(kept), ask, _answer(kept), ask, _answer(answer)]
    with_thoughts = conv_template_from_json(QWEN3 | {"strip_reasoning_in_history": False})
    template = conv_template_from_json(QWEN3)
    assert template.render(talk) == with_thoughts.render(plain)
    assert template.render([_answer(answer)]) == with_thoughts.render([_answer(answer)])
    assert template.render([_answer(None), ask]) == with_thoughts.render([_answer(None), ask])


def test_separators_that_a_template_does_not_have_are_those_of_webllm() -> None:
    value: dict[str, Any] = {"roles": {"user": "U", "assistant": "A"}, "seps": ["\n"]}
    for more in ({}, {"role_content_sep": None, "role_empty_sep": None, "role_templates": None}):
        assert conv_template_from_json(value | more).render(TALK[:1]) == "U: hi\nA: "


def test_an_empty_system_message_may_have_no_turn() -> None:
    value = CHATML | {"system_message": "", "render_empty_system_message": False}
    empty = {"role": "system", "content": ""}
    for messages in (TALK[:1], [empty, *TALK[:1]]):
        prompt = conv_template_from_json(value).render(messages)
        assert prompt == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert "system" in conv_template_from_json(value).render([empty | {"content": "x"}, *TALK[:1]])


def test_the_answer_may_begin_with_given_text() -> None:
    value = CHATML | {"role_content_sep": "\n", "role_empty_sep": ""}
    template = conv_template_from_json(value)
    assert template.render(TALK[:1]).endswith("<|im_start|>assistant")
    assert template.render(TALK[:1], reply_start="No.").endswith("<|im_start|>assistant\nNo.")


def test_tools_for_hermes() -> None:
    tools = [{"type": "function", "function": {"name": "é"}}]
    compact = '[{"type":"function","function":{"name":"é"}}]'
    message = hermes_system_message(tools)
    assert message.startswith("You are a function calling AI model. You are \nprovided")
    assert f"<tools> {compact}  </tools>. \nUse" in message
    template = conv_template_from_json(CHATML | {"system_message": "Tools: {hermes_tools}"})
    assert f"Tools: {compact}<|im_end|>" in template.render(TALK, tools=tools)
    assert "Tools: <|im_end|>" in template.render(TALK)
    asked = [{"role": "system", "content": "{hermes_tools}"}, *TALK]
    assert "system\n{hermes_tools}<|im_end|>" in template.render(asked, tools=tools)


def test_names_of_mlc_templates() -> None:
    for name in MLC_TEMPLATES:
        assert conv_template_from_json(name).name == name
    prompt = conv_template_from_json("llama-2").render(TALK[:1])
    assert prompt.startswith("[INST] <<SYS>>\nYou are a helpful, respectful and honest assistant.")
    assert conv_template_from_json("qwen3").strip_reasoning_in_history
    with pytest.raises(ConfigError, match=r"'vicuna_v1\.1' is not known; known are LM, chatml,"):
        conv_template_from_json("vicuna_v1.1")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"separator_style": 1}, "separator_style"),
        ({"seps": []}, "seps"),
        ({"seps": ["a", "b", "c"]}, "seps"),
        ({"seps": "a"}, "seps"),
        ({"roles": {"user": "U"}}, "roles"),
        ({"roles": None}, "roles"),
        ({"stop_token_ids": ["x"]}, "stop_token_ids"),
        ({"system_message": 3}, "system_message"),
    ],
)
def test_malformed_templates(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        conv_template_from_json(CHATML | changes)
