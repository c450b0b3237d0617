# `make train` and `make test` each set up all they need: a virtual environment in .venv with the
# project in it. PYTHON chooses the interpreter (3.10 or newer) that makes it.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup train test lint clean

setup: $(READY)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or newer is needed; name one with: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Setting up .venv: some minutes, and some gigabytes."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --quiet --editable '.[test]'
	@touch $@

train: setup
	$(BIN)/python scripts/train.py

test: setup lint
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
