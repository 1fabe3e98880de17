# Everything here needs Python 3.11 or newer, make and git; the rest is installed into .venv.
#
#   make demo     a server, a FastAPI app as its worker, and a handful of runs
#   make test     lint, types and every test, on SQLite and on a PostgreSQL of its own
#   make bench    throughput and latency on this machine, on SQLite
#   make sim      the real engine in simulated histories full of faults: make sim SEEDS=0:3000
#   make clients  generated clients, compiled and run against a server: make clients LANGUAGES="python typescript"
#   make contract a real server, asked what is made up from openapi.yaml: make contract CASES=10000
#   make chaos    real servers and workers that are really killed: make chaos MINUTES=10

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TOOLCHAINS := $(VENV)/.toolchains
GENERATORS := $(VENV)/.generators
WORKERS ?= 2
TYPED := sdk dispatcher app examples tests
BENCH ?= --runs 20000

KUBERNETES ?= 1.34.0
SEEDS ?= 0:300
MINUTES ?= 5
CASES ?= 10000
SEED ?=

.PHONY: help venv demo test lint types unit wheel smoke bench sim chaos contract breaking released clients format clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#   make/make/p' Makefile
	@echo 'make lint types unit wheel smoke format clean'

venv: $(READY)

# PYTHON names the interpreter; without it the first of these that is new enough is taken.
$(READY): pyproject.toml constraints.txt sdk/hurlbat/version.py
	@python=''; \
	for each in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python); do \
		if "$$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python="$$each"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo 'Hurlbat needs Python 3.11 or newer and found none; install one, or name it: make PYTHON=/path/to/python3.11' >&2; \
		exit 1; \
	fi; \
	[ -x $(BIN)/python ] || "$$python" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[server,postgres]' --group dev
	@$(BIN)/python tests/support/binaries.py || $(BIN)/python -m pip install --quiet --no-deps -c constraints.txt pgserver
	@touch $@

# node, npm and go for the workers in other languages: large, and only the tests need them
$(TOOLCHAINS): $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt --group toolchains
	@touch $@

# the generators of clients, which have requirements of their own
$(GENERATORS): tests/clients/requirements.txt | $(READY)
	$(BIN)/python -m venv --clear $(VENV)/generators
	$(VENV)/generators/bin/python -m pip install --quiet --no-deps -r tests/clients/requirements.txt
	@touch $@

demo: venv
	$(BIN)/hurlbat demo --app examples.fastapi_app.main:app

test: lint types unit

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/hadolint deploy/Dockerfile deploy/Dockerfile.worker
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml
	$(BIN)/kubernetes-validate --quiet --strict -k $(KUBERNETES) deploy/kubernetes/*.yaml

types: venv
	$(BIN)/mypy $(TYPED)
	$(BIN)/pyright

# A skipped, expected-to-fail or warning test fails: see tests/conftest.py and pyproject.toml.
unit: $(TOOLCHAINS) $(GENERATORS)
	$(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

wheel: venv
	rm -rf dist
	$(BIN)/python -m build --wheel --outdir dist .

smoke: wheel
	$(BIN)/python -m tests.support.smoke dist/*.whl

bench: venv
	$(BIN)/hurlbat bench $(BENCH)

sim: venv
	$(BIN)/python -m tests.sim --seeds $(SEEDS)

chaos: venv
	$(BIN)/python -m tests.chaos --minutes $(MINUTES) --database postgres
	$(BIN)/python -m tests.chaos --minutes $(MINUTES) --database sqlite

clients: $(TOOLCHAINS) $(GENERATORS)
	$(BIN)/python -m tests.clients $(LANGUAGES)

contract: venv
	$(BIN)/python -m tests.contract.fuzz --cases $(CASES) $(if $(SEED),--seed $(SEED)) --database sqlite
	$(BIN)/python -m tests.contract.fuzz --cases $(CASES) $(if $(SEED),--seed $(SEED)) --database postgres

breaking: $(TOOLCHAINS)
	$(BIN)/python -m tests.contract.breaking

released: venv
	cp openapi.yaml tests/contract/released.yaml
	sed -i -n '/^#/p; $$a []' tests/contract/accepted.yaml

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .cache dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis .demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
