# Everything runs in .venv, which `make setup` builds from requirements.lock: python3, make and the package index suffice.
PYTHON ?= python3
BIN := .venv/bin
# With it every worker of Ray would compile all that it imports again: 5 CPU seconds instead of 2.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo bench test faults lint clean

setup: .venv/ready

.venv/ready: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

demo: setup
	$(BIN)/line-audit demo

bench: setup
	$(BIN)/python -m tests.bench $(BENCH)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: setup lint
	$(BIN)/python -m pytest --numprocesses 2 --no-loadscope-reorder --durations 25

faults: setup
	$(BIN)/python -m pytest -m campaign --timeout 1800 $(FAULTS)

clean:
	rm -rf .venv demo-output bench-output .pytest_cache .mypy_cache .ruff_cache .hypothesis
