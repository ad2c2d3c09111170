# The commands that people and CI run; `make help` lists them.

PYTHON ?= python3
VENV ?= .venv
MODEL ?= SmolLM2-135M-Instruct
PROMPT ?= Explain in two sentences what a GPU is good at.
BATCH ?= 1,4
TIERS ?= tests/unit tests/models tests/gpu tests/browser
JOBS ?= 2
COUNT ?= 20000
SEED ?= 0

BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable
BUILT_FROM := pyproject.toml hatch_build.py $(shell find src/webllm -name '*.[ch]')
SITE_FROM := $(BUILT_FROM) LICENSE THIRD_PARTY_NOTICES.md $(wildcard js/*.mjs js/*.py js/tsconfig*.json) \
	$(shell find js/src -type f) $(shell find src/webllm -name '*.py' -o -name '*.wgsl' -o -name '*.js')

export PROMPT

.PHONY: help run check test test-long coverage lint generated bench fuzz web site vulkan chromium firefox webkit

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 11

run: $(VENV)/.installed ## ask a model a question: make run PROMPT="…" MODEL=…
	@$(BIN)/webllm run "$(MODEL)" "$$PROMPT"

# $(call tier_needs,tier,targets): the targets, if TIERS names the tier or a file of it.
tier_needs = $(if $(filter tests tests/ tests/$(1) tests/$(1)/%,$(TIERS)),$(2))

PYTEST := $(BIN)/pytest --numprocesses $(JOBS) --dist loadfile
check: lint ## lint, type checks and the unit tier, in less than three minutes
	$(PYTEST) tests/unit

BROWSERS := chromium firefox webkit
test: lint $(call tier_needs,gpu,vulkan) $(call tier_needs,browser,$(BROWSERS) site) ## lint, type checks and every tier of tests
	$(PYTEST) $(TIERS)

test-long: $(VENV)/.installed-dev vulkan ## kills, fuzzing, many loads and streams, all storage types; 20 minutes
	$(BIN)/pytest tests/long --save

coverage: $(VENV)/.installed-dev ## show which lines of the package the unit and the CPU tier run
	$(PYTEST) --cov --cov-report=term tests/unit tests/models

lint: $(VENV)/.installed-dev js/node_modules/.installed ## run ruff, mypy, tsc and prettier
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	npm --prefix js run --silent check

generated: $(VENV)/.installed-dev ## write anew what tests compare with the code: docs/kernels.md, TypeScript types, npm's version
	PYTHONPATH=tests $(BIN)/python tests/kernel_page.py
	$(BIN)/python js/client_types.py
	npm --prefix js version --no-git-tag-version --allow-same-version "$$($(BIN)/python -c 'import webllm; print(webllm.__version__)')"

web: site ## serve the chat page on localhost: make web MODEL=…
	@$(BIN)/webllm web --model "$(MODEL)"

site: js/dist/.built ## build the files for browsers into js/dist: scripts, Python and the wheels

bench: $(VENV)/.installed ## measure tokens per second: make bench BATCH=1,4,16
	@$(BIN)/webllm bench "$(MODEL)" --batch "$(BATCH)"

# A file takes about 0.1 s on one core. Pass --seed and --first of a finding to repeat it.
FUZZ := $(BIN)/python tests/fuzz/fuzz_model.py --seed $(SEED)
fuzz: $(VENV)/.installed-dev ## load mutated model files: make fuzz COUNT=20000 SEED=…
	$(FUZZ) --count $(COUNT) --sanitize build/sanitized
	$(FUZZ) --count $$(( $(COUNT) / 10 )) --host wasm
	$(FUZZ) --count $$(( $(COUNT) / 10 ))

$(VENV)/.installed: $(BUILT_FROM)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "webllm needs Python 3.11 or newer; name one with make PYTHON=…")'
	@echo "Installing into $(VENV)"
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(PIP_INSTALL) '.[all]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing the test dependencies, and compiling the kernels to WebAssembly"
	@WEBLLM_BUILD_WASM=1 $(PIP_INSTALL) '.[dev]'
	@touch $@

js/node_modules/.installed: js/package-lock.json
	npm --prefix js ci --loglevel=error
	@touch $@

js/dist/.built: $(VENV)/.installed-dev js/node_modules/.installed $(SITE_FROM)
	$(BIN)/python js/wheels.py js/dist/wheels
	npm --prefix js run --silent build
	@touch $@

# The gpu tier needs an adapter: on Linux without a GPU, Mesa's lavapipe.
VULKAN_PACKAGES := libvulkan1 mesa-vulkan-drivers
vulkan:
	@[ "$$(uname)" != Linux ] && exit 0; \
	ls /usr/share/vulkan/icd.d/*.json >/dev/null 2>&1 && \
		ls /usr/lib/*/libvulkan.so.1 /usr/lib64/libvulkan.so.1 2>/dev/null | grep -q . && exit 0; \
	$(call apt_install,The gpu tests need a Vulkan driver,$(VULKAN_PACKAGES))

# The browser tier needs Chromium, or Chrome.
chromium:
	@command -v chromium google-chrome >/dev/null && exit 0; \
	$(call apt_install,The browser tests need Chromium,chromium)

# Some browser tests also need Firefox and WebKitGTK, with a virtual display.
firefox:
	@command -v firefox-esr firefox >/dev/null && exit 0; \
	$(call apt_install,The browser tests need Firefox,firefox-esr)

WEBKIT_PACKAGES := webkit2gtk-driver xvfb python3-gi gir1.2-webkit2-4.1
webkit:
	@command -v WebKitWebDriver >/dev/null && command -v Xvfb >/dev/null && \
		/usr/bin/python3 -c 'import gi; gi.require_version("WebKit2", "4.1")' 2>/dev/null && \
		exit 0; \
	$(call apt_install,The browser tests need WebKitGTK,$(WEBKIT_PACKAGES))

# $(call apt_install,reason,packages)
define apt_install
if [ "$$(id -u)" = 0 ]; then root=; \
elif sudo -n true 2>/dev/null; then root=sudo; \
else echo "$(1): sudo apt-get install $(2)" >&2; exit 1; fi; \
$$root apt-get update -q && $$root apt-get install -qy --no-install-recommends $(2)
endef
