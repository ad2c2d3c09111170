# What a person does and what CI does are the same commands; `make help` lists them.

PYTHON ?= python3
VENV ?= .venv
MODEL ?= SmolLM2-135M-Instruct
PROMPT ?= Explain in two sentences what a GPU is good at.
BATCH ?= 1,4
TIERS ?= tests/unit tests/models tests/gpu

BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable
BUILT_FROM := pyproject.toml $(wildcard hatch_build.py src/webllm/cpu/*.c src/webllm/cpu/*.h)

export PROMPT

.PHONY: help run test lint bench vulkan

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 8

run: $(VENV)/.installed ## ask the default model something: make run PROMPT="…" MODEL=…
	@$(BIN)/webllm run "$(MODEL)" "$$PROMPT"

test: lint vulkan ## everything that must hold: lint, types, every tier of tests
	$(BIN)/pytest $(TIERS)

lint: $(VENV)/.installed-dev ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(VENV)/.installed ## tokens per second here: make bench BATCH=1,4,16
	@$(BIN)/webllm bench "$(MODEL)" --batch "$(BATCH)"

$(VENV)/.installed: $(BUILT_FROM)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "webllm needs Python 3.11 or newer; name one with make PYTHON=…")'
	@echo "Installing into $(VENV)"
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(PIP_INSTALL) '.[all]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing what the tests need, and compiling the kernels to WebAssembly as well"
	@WEBLLM_BUILD_WASM=1 $(PIP_INSTALL) '.[dev]'
	@touch $@

# The gpu tier needs an adapter. On a Linux machine without a GPU that is Mesa's lavapipe.
VULKAN_PACKAGES := libvulkan1 mesa-vulkan-drivers
vulkan:
	@[ "$$(uname)" != Linux ] && exit 0; \
	ls /usr/share/vulkan/icd.d/*.json >/dev/null 2>&1 && \
		ls /usr/lib/*/libvulkan.so.1 /usr/lib64/libvulkan.so.1 2>/dev/null | grep -q . && exit 0; \
	if [ "$$(id -u)" = 0 ]; then root=; \
	elif sudo -n true 2>/dev/null; then root=sudo; \
	else echo "The gpu tests need a Vulkan driver: sudo apt-get install $(VULKAN_PACKAGES)" >&2; exit 1; fi; \
	$$root apt-get update -q && $$root apt-get install -qy --no-install-recommends $(VULKAN_PACKAGES)
