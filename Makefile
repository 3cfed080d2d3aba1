# One machine, one environment. `make help` lists the targets.
SHELL  := bash
# 3.11 is tested; constraints.txt also resolves for 3.12 and 3.13.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Annoy is compiled at installation. It is left out if there is no C++ compiler (FAISS is the default).
EXTRAS  = $(if $(shell command -v c++ || command -v g++),annoy$(comma))redis$(comma)optuna$(comma)kubernetes$(comma)sql$(comma)delta$(comma)iceberg$(comma)dev

CONFIG   ?= configs/demo.yaml
DATA     ?=
TEST_DAY ?=
comma    := ,

# Two processes run the tests, each on one core. tests/conftest.py says which tests share a process.
PYTEST  = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --durations 10

.PHONY: help install demo up status shell down test fuzz e2e ui soak lint format

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1|/' | while IFS='|' read -r name text; do \
		printf '  make %-8s %s\n' "$$name" "$$text"; done

install: $(STAMP) ## create .venv with everything, pinned by constraints.txt

# torch is named so that pip takes exactly this build. Byte-compiling once shortens the start of
# every process.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
		echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13: make install PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing [$(EXTRAS)] into $(VENV): some minutes the first time"
	$(BIN)/python -m pip install -qq torch==2.13.0 -e '.[$(EXTRAS)]' -c constraints.txt
	@$(BIN)/python -m compileall -q -j 0 $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') >/dev/null 2>&1 || true
	@touch $@

demo: install ## train, test and register a model with Airflow and MLflow (CONFIG=… DATA=… TEST_DAY=…)
	@$(BIN)/python -m local.demo --config '$(CONFIG)' $(if $(DATA),--data '$(DATA)') $(if $(TEST_DAY),--test-day '$(TEST_DAY)')

up: install ## start MLflow and Airflow in the background
	@$(BIN)/python -m local.servers up

status: install ## show which servers run, their addresses and the login
	@$(BIN)/python -m local.servers status

shell: install ## open a shell that uses the servers: dssm history …, airflow backfill create …
	@$(BIN)/python -m local.servers shell

down: ## stop the servers
	@test ! -x $(BIN)/python || $(BIN)/python -m local.servers down

test: install ## run the quick tests: units, contracts, pipeline, Dag
	$(PYTEST) -m 'not e2e and not ui and not soak'

INPUTS ?= 10000

fuzz: install ## try many odd configs and damaged logs, some hours (INPUTS=10000)
	DSSM_FUZZ=$(INPUTS) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/fuzz -k many --tb=no

e2e: install ## run the Dags on real servers and check them through their APIs and in a browser
	$(PYTEST) -m '(e2e or ui) and not soak' tests/e2e tests/ui

ui: install ## run the browser tests only; they take the README's screenshots
	$(BIN)/python -m pytest -m ui tests/ui

soak: install ## run the long tests, before a release (needs DSSM_DATA)
	$(PYTEST) -m soak

lint: install ## run ruff, import-linter (layers), and mypy strict on dssm_core
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: install ## format the code and apply ruff's fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
