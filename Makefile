# make demo    judge six models on the built-in benchmarks; MODEL=name-or-dir adds yours
# make demo-train   train a page retriever with batches by chance and with B3 batches, and judge both
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
CARD_MODELS := raylib/bm25,raylib/page-retriever-tiny,raylib/untrained-page-retriever
MODEL ?=

TRAINED := demo-train
TRAIN := --config jobs/train.yaml --data $(TRAINED)/cards --local
MINE := --batch-size 64 --cluster-size 8 --duplicate-similarity 0.9999 --local

# Workers of tests and demo are on this machine alone. Deployed clusters use token authentication.
export RAY_AUTH_MODE = disabled
export RAY_USAGE_STATS_ENABLED = 0

.PHONY: setup demo demo-train test test-cluster check bench clean

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
	$(BIN)/raylib evaluate --model $(CARD_MODELS)$(if $(MODEL),$(comma)$(MODEL)) --benchmarks StdlibCards --output-folder results --local
	@echo "The leaderboard: results/leaderboard.html"

# The same steps with batches by chance, and with those that the model they give finds hard.
demo-train: setup
	$(BIN)/python -m raylib.tasks.stdlib_cards $(TRAINED)/cards
	$(BIN)/raylib train $(TRAIN) --output-folder $(TRAINED)/random
	$(BIN)/raylib mine batches --data $(TRAINED)/cards --model $(TRAINED)/random/model --output $(TRAINED)/b3.parquet $(MINE)
	$(BIN)/raylib train $(TRAIN) --batch-plan $(TRAINED)/b3.parquet --output-folder $(TRAINED)/b3
	$(BIN)/raylib evaluate --model raylib/untrained-page-retriever,$(TRAINED)/random/model,$(TRAINED)/b3/model --tasks StdlibCardsT2I --output-folder $(TRAINED)/results --local
	$(BIN)/raylib plot loss $(TRAINED)/random --out $(TRAINED)/loss-random.png
	$(BIN)/raylib plot loss $(TRAINED)/b3 --out $(TRAINED)/loss-b3.png
	$(BIN)/raylib plot metrics $(TRAINED)/random $(TRAINED)/b3 --labels random B3 --out $(TRAINED)/ndcg.png

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
	rm -rf $(VENV) results $(TRAINED)

comma := ,
