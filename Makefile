# `make train`, `make test` and `make docs` each set up all they need: a virtual environment in
# .venv with the project in it. PYTHON chooses the interpreter (3.10 or newer) that makes it.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DOCS_READY := .venv/.docs-ready

.PHONY: setup train explore test lint docs linkcheck clean

setup: $(READY)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or newer is needed; name one with: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Setting up .venv: five to ten minutes in silence, and some gigabytes."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --quiet --editable '.[test]'
	@touch $@

train: setup
	$(BIN)/python scripts/train.py

explore: setup
	$(BIN)/python scripts/explore.py

test: setup lint
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(DOCS_READY): $(READY)
	$(BIN)/python -m pip install --quiet --quiet --editable '.[docs]'
	@touch $@

# Each warning, failing cell and broken reference fails the build; links to other sites are not
# looked at, which `make linkcheck` does.
docs: $(DOCS_READY)
	$(BIN)/python -m sphinx -q -E -W --keep-going -j 2 -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

linkcheck: $(DOCS_READY)
	$(BIN)/python -m sphinx -q -E -b linkcheck -D nb_execution_mode=off docs docs/_build/linkcheck

clean:
	rm -rf .venv build docs/_build docs/api/pyro_rnp docs/api/inference *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
