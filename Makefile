# Two commands matter: `make test` and `make demo`. Each brings its own environment up to date first.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=

.PHONY: test slow lint types check demo zoo clean

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest tests $(PYTEST_ARGS)

slow: $(VENV)/.installed-slow
	$(BIN)/python -m pytest tests -m slow $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

check: test lint types

demo: $(VENV)/.installed-demo
	$(BIN)/python examples/demo.py

zoo: $(VENV)/.installed-slow
	$(BIN)/python examples/zoo.py get --all

clean:
	rm -rf $(VENV) build dist mlc_compress.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# A stamp is newer than what decides the packages; the development set contains the demo's.
$(VENV)/.installed-demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[demo]'
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev,torch]'
	touch $@ $(VENV)/.installed-demo

$(VENV)/.installed-slow: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev,torch,zoo]'
	touch $@ $(VENV)/.installed-dev $(VENV)/.installed-demo
