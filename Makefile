# `make run` and `make test` need only Python 3.11, git and make.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install run test lint docs notebook bench clean

# The stamp is newer than the pins when what is installed is what they say.
$(VENV)/stamp: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

install: $(VENV)/stamp

run: install
	$(BIN)/scanvi-study run

test: install
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy study

# The pages of docs/ as a site to be read from disk: site/index.html. A dead link is an error.
docs: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -E -d $(VENV)/doctrees docs site

# Runs docs/notebook.ipynb again and keeps what it shows.
notebook: install
	$(BIN)/python docs/execute.py

# What a study costs, in reduced sizes: ratios against baselines in the same run.
bench: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	for benchmark in step_cost sweep_cost scale makespan; do \
		$(BIN)/python benchmarks/$$benchmark.py --quick --json || exit 1; \
	done

clean:
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
