# Everything on a fresh machine: `make train` learns, `make test` proves, `make parity` compares
# with the originals. TORCH_INDEX=<index url> chooses another build of torch.
PYTHON ?= python3
VENV ?= .venv
REFERENCE ?= .venv-reference
ADAPTERS ?= .venv-adapters
SERVED ?= .venv-served
TORCH_INDEX ?=
HIMAC_DATA ?= ../shared/data
PARITY ?=
PYTEST ?=
# Test files that run side by side, each with one thread.
JOBS ?= 2
# Processes that train together; the same run with any number of them.
PROCESSES ?= 2
ARGS ?=

BIN := $(VENV)/bin
TORCH := $(shell grep '^torch==' constraints.txt)
STACKS := $(sort $(basename $(notdir $(wildcard tests/adapters/requirements/*.txt))))

export HIMAC_DATA

.PHONY: install train test lint browser reference parity adapters stacks served clean-venv

install: $(VENV)/.installed

# torch first and by its exact version: a range would let another build, of several GB, arrive.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all,dev]"
	touch $@

train: install
	$(BIN)/himac train quickstart --processes $(PROCESSES) $(ARGS)

test: install lint browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(PYTEST)

lint: install
	$(BIN)/ruff check .
	$(BIN)/mypy

# The browser tests need Debian's chromium; they skip with a reason where it is missing.
browser:
	@if ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null; then \
	  if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	    (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium chromium-driver) >/dev/null 2>&1 \
	      || echo "chromium could not be installed: the browser tests will skip"; \
	  else echo "no chromium: the browser tests will skip (apt-get install chromium chromium-driver)"; fi; fi

reference: $(REFERENCE)/.installed

# The originals build C++ and need an old setuptools, so they live apart.
$(REFERENCE)/.installed: pyproject.toml
	$(PYTHON) -m venv $(REFERENCE)
	$(REFERENCE)/bin/python -m pip install --quiet "setuptools<81" wheel
	$(REFERENCE)/bin/python -m pip install --quiet --editable ".[reference,sokoban]"
	touch $@

# PARITY=--short plays fewer games.
parity: reference
	@set -e; for script in tests/parity/compare_*.py; do echo "== $$script"; \
	  $(REFERENCE)/bin/python $$script $(PARITY); done

# Other people's stacks exclude each other, so each has an environment of its own: `make adapters`
# runs them all, `make adapter-gem` one.
adapters: $(addprefix adapter-,$(STACKS))

adapter-%: $(ADAPTERS)/%/.installed
	$(ADAPTERS)/$*/bin/python -m pytest tests/adapters/test_$*.py $(PYTEST)

stacks:
	@echo $(STACKS)

.PRECIOUS: $(ADAPTERS)/%/.installed

# torch, where a stack wants it, first and by its exact version, as above.
$(ADAPTERS)/%/.installed: tests/adapters/requirements/%.txt pyproject.toml constraints.txt
	$(PYTHON) -m venv $(ADAPTERS)/$*
	@echo "$(TORCH)" >$(ADAPTERS)/$*/torch.txt
	if grep -q '^torch$$' $<; then $(ADAPTERS)/$*/bin/python -m pip install --quiet \
	  $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"; fi
	$(ADAPTERS)/$*/bin/python -m pip install --quiet --constraint $(ADAPTERS)/$*/torch.txt \
	  --requirement $< --editable ".[webshop]" pytest pytest-timeout
	touch $@

# Sampling from real vLLM servers, on CPUs.
served: $(SERVED)/.installed
	$(SERVED)/bin/python -m pytest tests/served $(PYTEST)

$(SERVED)/.installed: tests/served/requirements.txt pyproject.toml constraints.txt
	$(PYTHON) -m venv $(SERVED)
	$(SERVED)/bin/python -m pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	$(SERVED)/bin/python -m pip install --quiet --no-compile --no-deps --requirement $<
	$(SERVED)/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

clean-venv:
	rm -rf $(VENV) $(REFERENCE) $(ADAPTERS) $(SERVED)
