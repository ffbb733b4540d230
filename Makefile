# Everything on a fresh machine: `make train` learns, `make test` proves, `make parity` compares
# with the originals. TORCH_INDEX=<index url> chooses another build of torch.
PYTHON ?= python3
VENV ?= .venv
REFERENCE ?= .venv-reference
ADAPTERS ?= .venv-adapters
SERVED ?= .venv-served
DOCS ?= .venv-docs
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

.PHONY: install train test lint browser reference parity adapters stacks served docs docs-test dist clean-venv

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
	$(ADAPTERS)/$*/bin/python -m pytest tests/adapters/test_$*.py \
	  $(wildcard tests/adapters/test_himac_$*.py) $(PYTEST)

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
	$(SERVED)/bin/python -m pytest $(filter-out %_trainings.py,$(wildcard tests/served/test_*.py)) \
	  tests/served/test_trainings.py $(PYTEST)

$(SERVED)/.installed: tests/served/requirements.txt pyproject.toml constraints.txt
	$(PYTHON) -m venv $(SERVED)
	$(SERVED)/bin/python -m pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	$(SERVED)/bin/python -m pip install --quiet --no-compile --no-deps --requirement $<
	$(SERVED)/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

# The site, into site/: nothing is loaded from elsewhere, and a broken link or a name without a
# docstring is an error.
docs: $(DOCS)/.installed
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/python -m mkdocs build --strict --quiet
	@echo "site/index.html"

# The site in a browser, and the notebook from end to end.
docs-test: $(DOCS)/.installed
	OMP_NUM_THREADS=1 $(DOCS)/bin/python -m pytest tests/docs $(PYTEST)

$(DOCS)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	$(DOCS)/bin/python -m pip install --quiet --constraint constraints.txt \
	  --editable ".[docs,agents,sokoban,browser,multiagent]" pytest pytest-timeout
	touch $@

# The archive and the wheel, checked as an index would show them; the wheel then plays in a clean
# environment. docs/release.md tells the rest.
dist:
	rm -rf dist .venv-dist
	$(PYTHON) -m venv .venv-dist
	.venv-dist/bin/python -m pip install --quiet build twine
	.venv-dist/bin/python -m build --outdir dist
	.venv-dist/bin/python -m twine check --strict dist/*
	rm -rf .venv-dist && $(PYTHON) -m venv .venv-dist
	.venv-dist/bin/python -m pip install --quiet dist/*.whl
	cd dist && ../.venv-dist/bin/himac play alfworld --expert --seed 0 --data generated
	@du -h dist/*; du -sh .venv-dist
	rm -rf .venv-dist

clean-venv:
	rm -rf $(VENV) $(REFERENCE) $(ADAPTERS) $(SERVED) $(DOCS)
