# make demo    judge four models on the built-in benchmark; MODEL=name-or-dir adds yours
# make test    the tests, set up from nothing; on real Ray the quick half
# make test-cluster   all tests on real Ray
# make check   style, types, import rules
# make bench   the claims about speed, measured here

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UV := $(VENV)/uv/bin/uv

DEMO_MODELS := raylib/bm25,raylib/hashed-ngrams,raylib/untrained-clip,raylib/untrained-colpali
MODEL ?=

# Workers of tests and demo are on this machine alone. Deployed clusters use token authentication.
export RAY_AUTH_MODE = disabled
export RAY_USAGE_STATS_ENABLED = 0

.PHONY: setup demo test test-cluster check bench clean

setup: $(READY)

# Byte-compiled at once: otherwise every Ray worker compiles its imports again, ten seconds each.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 13) else f"Python 3.11 or 3.12 is needed, {sys.executable} is {v[0]}.{v[1]}; try make PYTHON=python3.12")'
	$(PYTHON) -m venv --clear $(VENV)
	$(PYTHON) -m venv $(VENV)/uv
	$(VENV)/uv/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(UV) pip install --quiet --python $(BIN)/python --compile-bytecode -r requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $(READY)

demo: setup
	$(BIN)/raylib evaluate --model $(DEMO_MODELS)$(if $(MODEL),$(comma)$(MODEL)) --benchmarks StdlibPages --output-folder results
	@echo "The leaderboard: results/leaderboard.html"

test: setup
	$(BIN)/python -m pytest tests --ignore tests/cluster -m "not slow" -n 2
	$(BIN)/python -m pytest tests/cluster -m "not slow"

test-cluster: setup
	$(BIN)/python -m pytest tests/cluster

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python benchmarks/evaluate.py

clean:
	rm -rf $(VENV) results

comma := ,
