# pcbench: every target makes the environment it needs. `make` alone prints this list.
#   PYTHON=python3.12 make setup     another interpreter (3.11 or later)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
SCALE ?= cpu
# a single run does not fill two cores, so at scale cpu two worker processes share them
EXECUTOR ?= $(if $(filter cpu,$(SCALE)),processes,inline)
PAPERS := $(patsubst conf/paper/%.yaml,%,$(wildcard conf/paper/*.yaml))

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint format leaderboard papers published-papers clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z%-]+:.*## /{printf "  %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## the environment .venv: pinned dependencies and the package, editable

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "pcbench needs Python 3.11 or later; '$(PYTHON)' is $$($(PYTHON) -V 2>&1)." >&2; \
	  echo "Name another one: make $(or $(MAKECMDGOALS),setup) PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[dev,hpo,slurm]'
	@touch $@

demo: $(STAMP) ## a small sweep and its leaderboard, in minutes on a laptop
	$(BIN)/pcbench sweep demo
	$(BIN)/pcbench leaderboard

test: $(STAMP) ## the tests, without the slow ones (TFDS_DATA_DIR: where prepared datasets lie)
	$(BIN)/python -m pytest

test-all: $(STAMP) ## all tests, the slow ones included
	$(BIN)/python -m pytest -m '' --timeout 1800

lint: $(STAMP) ## style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## rewrite the sources in that style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

leaderboard: $(STAMP) ## the published table and page, from results/published (RESULTS=DIR joins DIR's runs)
	$(BIN)/python scripts/published_leaderboard.py $(RESULTS)
	@echo "The sweep: pcbench sweep published_leaderboard; then make leaderboard RESULTS=results"

# the published protocol whole, an hour or so on two cores
paper-pcx-mlp: SCALE := full

paper-%: $(STAMP) ## a published table, ours beside it: make paper-pcx-mlp SCALE=smoke|cpu|full
	$(BIN)/pcbench paper run $* --scale $(SCALE) \
	  --results $(or $(RESULTS),results) executor=$(EXECUTOR)

published-papers: $(STAMP) ## the published tables, from results/published/papers (RESULTS=DIR joins DIR's)
	$(BIN)/python scripts/published_papers.py $(RESULTS)

papers: $(STAMP) ## all published tables, at SCALE=cpu where it is not said
	$(BIN)/pcbench paper run $(PAPERS) --scale $(SCALE) \
	  --results $(or $(RESULTS),results) executor=$(EXECUTOR)

clean: ## the environment and the caches; results stay
	rm -rf $(VENV) .pytest_cache .ruff_cache build dist
