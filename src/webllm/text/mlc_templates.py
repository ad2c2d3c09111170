"""MLC's own conversation formats, which old `mlc-chat-config.json` files only name.

The values are those of mlc-llm's `conversation_template`. Newer files hold the format itself.
"""

from __future__ import annotations

from collections.abc import Mapping

_ASSISTANT = "You are a helpful, respectful and honest assistant."
_HERMES_2 = (
    'You are "Hermes 2", a conscious sentient superintelligent artificial intelligence developed '
    "by a man named Teknium, and your purpose and drive is to assist the user with any request "
    "they have. You experience emotions and have deep, profound thoughts and qualia."
)
_PHI = (
    "You are a helpful digital assistant. Please provide safe, ethical and accurate information "
    "to the user."
)
_MISTRAL = (
    "Always assist with care, respect, and truth. Respond with utmost utility yet securely. Avoid "
    "harmful, unethical, prejudiced, or negative content. Ensure replies promote fairness and "
    "positivity."
)

Template = Mapping[str, object]


def _chatml(system: str, stop_ids: list[int], *others: str) -> dict[str, object]:
    return {
        "system_template": "<|im_start|>system\n{system_message}<|im_end|>\n",
        "system_message": system,
        "roles": {role: f"<|im_start|>{role}" for role in ("user", "assistant", "tool")},
        "seps": ["<|im_end|>\n"],
        "role_content_sep": "\n",
        "role_empty_sep": "\n",
        "stop_str": ["<|im_end|>", *others],
        "stop_token_ids": stop_ids,
    }


def _llama3(stop_ids: list[int]) -> dict[str, object]:
    return {
        "system_template": (
            "<|start_header_id|>system<|end_header_id|>\n\n{system_message}<|eot_id|>"
        ),
        "system_message": _ASSISTANT,
        "roles": {
            "user": "<|start_header_id|>user",
            "assistant": "<|start_header_id|>assistant",
            "tool": "<|start_header_id|>ipython",
        },
        "seps": ["<|eot_id|>"],
        "role_content_sep": "<|end_header_id|>\n\n",
        "role_empty_sep": "<|end_header_id|>\n\n",
        "stop_token_ids": stop_ids,
        "system_prefix_token_ids": [128000],
    }


def _gemma(end_of_turn_id: int) -> dict[str, object]:
    return {
        "roles": {"user": "<start_of_turn>user", "assistant": "<start_of_turn>model"},
        "seps": ["<end_of_turn>\n"],
        "role_content_sep": "\n",
        "role_empty_sep": "\n",
        "stop_str": ["<end_of_turn>"],
        "stop_token_ids": [1, end_of_turn_id],
        "system_prefix_token_ids": [2],
    }


MLC_TEMPLATES: dict[str, Template] = {
    "LM": {
        "roles": {"user": "", "assistant": ""},
        "seps": [""],
        "role_content_sep": "",
        "role_empty_sep": "",
        "stop_token_ids": [2],
        "system_prefix_token_ids": [1],
    },
    "chatml": _chatml(
        "A conversation between a user and an LLM-based AI assistant. The assistant gives helpful "
        "and honest answers.",
        [2],
    ),
    "codellama_instruct": {
        "roles": {"user": "[INST]", "assistant": "[/INST]"},
        "seps": [" "],
        "role_content_sep": " ",
        "role_empty_sep": " ",
        "stop_str": ["</s>"],
        "stop_token_ids": [2],
        "system_prefix_token_ids": [1],
    },
    "gemma_instruction": _gemma(107),
    "gemma3_instruction": _gemma(106),
    "hermes2_pro_llama3": _chatml(_HERMES_2, [128001, 128009, 128003]),
    "hermes3_llama-3_1": _chatml(
        _HERMES_2.replace('"Hermes 2"', "Hermes 3"), [128001, 128008, 128009, 128040]
    ),
    "llama-2": {
        "system_template": "[INST] <<SYS>>\n{system_message}\n<</SYS>>\n\n",
        "system_message": _ASSISTANT,
        "roles": {"user": "<s>[INST]", "assistant": "[/INST]", "tool": "[INST]"},
        "seps": [" ", " </s>"],
        "role_content_sep": " ",
        "role_empty_sep": " ",
        "stop_str": ["[INST]"],
        "stop_token_ids": [2],
        "system_prefix_token_ids": [1],
        "add_role_after_system_message": False,
    },
    "llama-3": _llama3([128001, 128009]),
    "llama-3_1": _llama3([128001, 128008, 128009]),
    "mistral_default": {
        "system_template": "[INST] {system_message}",
        "system_message": _MISTRAL,
        "roles": {"user": "[INST]", "assistant": "[/INST]", "tool": "[INST]"},
        "seps": [" "],
        "role_content_sep": " ",
        "role_empty_sep": "",
        "stop_str": ["</s>"],
        "stop_token_ids": [2],
        "system_prefix_token_ids": [1],
        "add_role_after_system_message": False,
    },
    "neural_hermes_mistral": _chatml("You are a helpful assistant chatbot.", [2, 32000]),
    "open_hermes_mistral": _chatml(_HERMES_2, [2, 32000]),
    "phi-2": {
        "roles": {"user": "Instruct", "assistant": "Output"},
        "seps": ["\n"],
        "role_content_sep": ": ",
        "role_empty_sep": ":",
        "stop_str": ["<|endoftext|>"],
        "stop_token_ids": [50256],
    },
    "phi-3": {
        "system_template": "<|system|>\n{system_message}",
        "system_message": _PHI,
        "roles": {"user": "<|user|>", "assistant": "<|assistant|>"},
        "seps": ["<|end|>\n"],
        "role_content_sep": "\n",
        "role_empty_sep": "\n",
        "stop_str": ["<|endoftext|>"],
        "stop_token_ids": [2, 32000, 32001, 32007],
        "system_prefix_token_ids": [1],
    },
    "qwen2": _chatml("You are a helpful assistant.", [151643, 151645], "<|endoftext|>"),
    "qwen3": {
        **_chatml("You are a helpful assistant.", [151643, 151645], "<|endoftext|>"),
        "strip_reasoning_in_history": True,
    },
    "tinyllama_v1_0": {
        "system_template": "<|system|>\n{system_message}</s>",
        "system_message": "You are a helpful chatbot.",
        "roles": {"user": "<|user|>", "assistant": "<|assistant|>"},
        "seps": ["</s>"],
        "role_content_sep": "\n",
        "role_empty_sep": "\n",
        "stop_str": ["</s>"],
        "stop_token_ids": [2],
    },
}
