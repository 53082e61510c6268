# `make demo` and `make test` set up .venv by themselves; `make help` lists the rest.
#   JAX=cpu|cuda12|tpu  the jax build, found out where not given
#   ARGS='..'           of `make mutants` and `make soak`: see `make soak ARGS=--help`; of
#                       `make test-oldest`: tests
#   PYTHON=python3.x    the interpreter for .venv, the newest of 3.11 to 3.13 where not given

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin

GOOGLE_CHIPS := 0x0027 0x0056 0x005e 0x0062 0x0063 0x006f 0x0076
JAX ?= $(shell \
	if [ -e /proc/driver/nvidia/version ] || [ -e /dev/nvidiactl ] || [ -e /dev/dxg ]; then echo cuda12; \
	else for d in /sys/bus/pci/devices/*; do \
	  [ "$$(cat $$d/vendor 2>/dev/null)" = 0x1ae0 ] || continue; \
	  case " $(GOOGLE_CHIPS) " in (*" $$(cat $$d/device) "*) echo tpu; break;; esac; \
	done; fi)
BUILD := $(or $(strip $(JAX)),cpu)
STAMP := $(VENV)/.installed-$(BUILD)

# `import ensurepip` fails on a Debian without python3-venv, where `python3 -m venv` fails too.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python3.14; do \
	$$p -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  && { echo $$p; break; }; done)

# The oldest packages that are allowed have no wheels for the newest interpreters.
OLDEST := .venv-oldest
OLD_PYTHON ?= $(shell command -v python3.11 || command -v python3.12)

# What builds the documentation is installed when it is first asked for.
WITH_DOCS := $(BIN)/python -c 'import jupytext, material, mkdocstrings' 2>/dev/null \
	|| $(BIN)/python -m pip install --quiet -e '.[docs]'

# What some of the slow tests need: those of the site, the notebooks and tracking.
WITH_EXTRAS := $(BIN)/python -c 'import ipykernel, jupytext, material, mkdocstrings, mlflow, nbclient, wandb' 2>/dev/null \
	|| $(BIN)/python -m pip install --quiet -e '.[docs,notebook,track]'

.PHONY: help venv demo test test-all test-oldest soak mutants lint format docs docs-serve clean
help:
	@echo "make venv    create .venv (jax build: $(BUILD))"
	@echo "make demo    set-up, then a search on the bundled images: a few minutes"
	@echo "make test    set-up, lint and tests"
	@echo "make test-all  the slow tests, too; installs what those of site, notebooks and tracking need"
	@echo "make test-oldest  the tests with the oldest packages that are allowed"
	@echo "make soak      kills searches, fills disks, damages files: is anything lost? Two hours"
	@echo "make mutants   changes the code in small ways: do the tests notice? About an hour"
	@echo "make lint    ruff and mypy"
	@echo "make format  let ruff fix what it can"
	@echo "make docs    builds the documentation into site/; make docs-serve shows it while you write"
	@echo "make clean   remove .venv, caches and runs/demo"

venv: $(STAMP)

$(STAMP): pyproject.toml requirements.txt requirements-cpu.txt
	@if [ ! -x $(BIN)/python ]; then \
	  if [ -n "$(PYTHON)" ]; then $(PYTHON) -m venv $(VENV); \
	  elif command -v virtualenv >/dev/null; then virtualenv --quiet $(VENV); \
	  else echo "make: no Python >= 3.11 that can create environments was found;" \
	    "on Debian, 'apt install python3-venv' provides it." >&2; exit 1; fi; \
	fi
	@echo "installing into $(VENV), jax build: $(BUILD)"
ifeq ($(BUILD),cuda12)
	@$(BIN)/python -m pip install --quiet -r requirements.txt -e '.[dev]'
else ifeq ($(BUILD),tpu)
	@$(BIN)/python -m pip install --quiet -r requirements-cpu.txt -e '.[dev,tpu]'
else
	@$(BIN)/python -m pip install --quiet -r requirements-cpu.txt -e '.[dev]'
endif
	@rm -f $(VENV)/.installed-* && touch $@

demo: $(STAMP)
	$(BIN)/python -m fnas_jax.main --config=experiments/fnas_digits.py --workdir=runs/demo

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -m "not slow"

test-all: lint
	@$(WITH_EXTRAS)
	$(BIN)/python -m pytest

test-oldest: $(OLDEST)/.installed
	$(OLDEST)/bin/python -m pytest -m "not slow" $(ARGS)

$(OLDEST)/.installed: pyproject.toml requirements-cpu.txt tests/oldest.py
	@[ -n "$(OLD_PYTHON)" ] || { echo "make: python3.11 or python3.12 is needed" >&2; exit 1; }
	@[ -x $(OLDEST)/bin/python ] || $(OLD_PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python tests/oldest.py > $(OLDEST)/oldest.txt
	$(OLDEST)/bin/python -m pip install --quiet -c $(OLDEST)/oldest.txt -r requirements-cpu.txt -e '.[dev]'
	@touch $@

soak: $(STAMP)
	$(BIN)/python -m tests.soak $(ARGS)
	$(if $(ARGS),,$(BIN)/python -m pytest tests/fuzz --hypothesis-profile=soak)

mutants: $(STAMP)
	@$(BIN)/python -c 'import cosmic_ray' 2>/dev/null \
	  || $(BIN)/python -m pip install --quiet -e '.[mutants]'
	$(BIN)/python -m tests.mutation $(ARGS)

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP)
	@$(WITH_DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

docs-serve: $(STAMP)
	@$(WITH_DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve

clean:
	rm -rf $(VENV) $(OLDEST) build dist site *.egg-info .mutants .pytest_cache .ruff_cache .mypy_cache .hypothesis runs/demo
	find fnas_jax experiments tests -name __pycache__ -type d -exec rm -rf {} +
