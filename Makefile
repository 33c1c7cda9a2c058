# Every target sets itself up: Python >= 3.11 with pip and venv, and make, are all a machine needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

MANAGERS := .cache/managers

.PHONY: demo test check bench reliability lint types docs format managers clean

demo: $(VENV)/ready-demo  ## the example shop and a local Mixpanel stand-in; WSGI=1 for Flask
	@$(BIN)/mp-asgi demo $(if $(WSGI),--wsgi)

test: $(VENV)/ready  ## the test suite
	$(BIN)/python -m pytest

check: lint types  ## everything CI asks: format, lint, layers, types, tests with coverage
	$(BIN)/python -m pytest --cov --cov-report=term

bench: $(VENV)/ready  ## CPU added to a request, against anchors in the same run; then damaged cookies
	$(BIN)/python -m benchmarks.request
	$(BIN)/python -m benchmarks.fuzz

reliability: $(VENV)/ready  ## the fault runs of docs/reliability.md; a quarter of an hour
	$(BIN)/python -m benchmarks.reliability

lint: $(VENV)/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(VENV)/ready
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/ready  ## write the generated part of docs/configuration.md
	$(BIN)/python -m mp_asgi.settings.table docs/configuration.md

format: $(VENV)/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

managers: $(MANAGERS)  ## the consent managers and the mixpanel-browser of the browser tests, from npm

$(MANAGERS): tests/servers/managers/SHA256SUMS tests/servers/managers/fetch
	tests/servers/managers/fetch $@

clean:
	rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "mp-asgi needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'

$(VENV)/ready-demo: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev,flask,ua]'
	@touch $@

$(VENV)/ready: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable . --group all
	@touch $@ $(VENV)/ready-demo
