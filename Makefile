# make demo | make test | make lint: each sets up first. Needs Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.upcurve-setup
export OMP_NUM_THREADS ?= 1

.PHONY: help setup demo test lint unit format clean page chromium

help:
	@echo "make demo    the whole loop on this machine: serve, sweep twice, compare, show"
	@echo "make test    lint, types, room order and the test suite"
	@echo "make lint    ruff, mypy, import-linter"
	@echo "make page    build the dashboard's page again, after a change in page/ (needs npm)"
	@echo "make setup   create $(VENV) with everything"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else "upcurve needs Python 3.11 or newer, this is %d.%d: make PYTHON=python3.11" % v[:2])'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "installing python3-venv"; apt-get update -qq && apt-get install -y -qq python3-venv; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV) (once, a few minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[engine,dashboard,report,postgres,dev]'
	@touch $(STAMP)

demo: setup
	@$(BIN)/upcurve demo

test: lint unit

unit: setup chromium
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# The browser that the dashboard's page is tested in; without one those tests are skipped, and say so.
chromium:
	@command -v chromium >/dev/null || { echo "installing chromium"; apt-get update -qq && apt-get install -y -qq chromium; } || echo "no chromium: tests in a browser will be skipped"

page: setup
	@command -v npm >/dev/null || { echo "the page is built with npm, and there is none: install Node.js 20 or newer"; exit 2; }
	cd page && ../$(BIN)/python contract.py && npm ci --silent && npm run --silent build

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
