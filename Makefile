# `make demo` runs the main job, `make test` passes the tests. Both set everything up in .venv first.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test bench chaos lint lock docs clean
setup: .venv/.ready

.venv/.ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: Python 3.11 or newer is needed; name it with PYTHON=..."; exit 1; }
	@echo "setting up .venv (once; about half a minute)"
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

demo: setup  ## the main job: a simulated provider, a broker, a verifying receiver and the bridge between them
	@$(BIN)/jobbridge demo

test: setup  ## every test; lint and types are `make lint`
	@$(BIN)/python -m pytest

bench: setup  ## events a second and CPU an event on Apache Kafka, beside a loop written by hand
	@PYTHONPATH=tests $(BIN)/python tests/bench/bench_pipeline.py

chaos: setup  ## bridge and broker killed 50 times over 200,000 events, some ten minutes; CHAOS="--kills 10 --seed 7" etc.
	@PYTHONPATH=tests $(BIN)/python tests/chaos/chaos.py $(CHAOS)

lint: setup
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

lock: setup  ## write requirements.txt anew from pyproject.toml
	@$(BIN)/python -m pip install -q uv
	@$(BIN)/uv pip compile -q --universal --generate-hashes --no-emit-index-url --python-version 3.11 --all-extras --group dev \
		--custom-compile-command 'make lock' -o requirements.txt pyproject.toml

docs: setup  ## write anew what is generated: tables in README.md, config/schema.json, bridge/schemas
	@$(BIN)/python tests/generated.py

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
