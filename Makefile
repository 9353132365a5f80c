# `make run` and `make test` need only Python 3.11, git and make.
# For the newest of everything: make test PYTHON=python3.12 CONSTRAINTS=constraints-newest.txt
PYTHON ?= python3.11
CONSTRAINTS ?= constraints.txt
# Each set of versions has an environment of its own: .venv, .venv-newest.
VENV := .venv$(CONSTRAINTS:constraints%.txt=%)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS)

.PHONY: install run test lint docs notebook bench package clean

# The stamp is newer than the pins when what is installed is what they say.
$(VENV)/stamp: pyproject.toml $(CONSTRAINTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[dev]'
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
	$(PIP) --editable '.[docs]'
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -E -d $(VENV)/doctrees docs site

# Runs docs/notebook.ipynb again and keeps what it shows.
notebook: install
	$(BIN)/python docs/execute.py

# What a study costs, in reduced sizes: ratios against baselines in the same run.
bench: install
	$(PIP) --editable '.[bench]'
	for benchmark in step_cost sweep_cost start_end scale makespan looks; do \
		$(BIN)/python benchmarks/$$benchmark.py --quick --json || exit 1; \
	done

# The wheel and the source archive, in dist/, checked as a package index would.
package: install
	$(PIP) --editable '.[package]'
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*

clean:
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
