# `make` lists the targets. Each needs only Python >= 3.11 and make, installs into this folder, and leaves no process
# behind.

PYTHON ?= python3
# newest, 3.2 or lowest: the version of Airflow that `make test` uses, each with a file in tests/constraints.
AIRFLOW ?= newest
NEWEST := .venv
DEPLOY := .venv-deploy
COMMA := ,
TESTED := .venv$(if $(filter-out newest,$(AIRFLOW)),-$(AIRFLOW))$(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))
TWO := --numprocesses 2 --dist loadscope
# An older Airflow does not repeat the tests of parts that know nothing of it, nor the simulation, which has its own.
WITHOUT_AIRFLOW := $(if $(filter-out newest,$(AIRFLOW)),--ignore tests/emulator --ignore tests/simulation --ignore tests/unit/test_estimator.py)

.PHONY: help demo check test cover test-deploy test-clients simulate bench docs lint format clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

demo: $(NEWEST)/.installed ## Run the main job for real: Airflow, a local FLUX API and S3
	@$(NEWEST)/bin/python -m scripts.demo

check: lint ## Lint, types, unit and emulator tests: about a minute
	$(NEWEST)/bin/python -m pytest $(TWO) tests/unit tests/emulator

# Two processes: one has the running Airflow, which mostly waits, the other all the rest.
test: $(TESTED)/.installed ## Run the tests (AIRFLOW=newest, 3.2 or lowest; PYTHON=python3.12)
	$(TESTED)/bin/python -m pytest $(TWO) $(WITHOUT_AIRFLOW)

cover: $(NEWEST)/.installed ## Run every test once, with branch coverage
	$(NEWEST)/bin/python -m pytest $(TWO) --cov --cov-report=term

test-deploy: $(DEPLOY)/.installed ## Run the tests of a distributed deployment; need PostgreSQL and Redis
	$(DEPLOY)/bin/python -m pytest tests/deploy

test-clients: $(NEWEST)/.installed ## Run clients that others wrote against the emulator; installs them from PyPI and npm
	$(NEWEST)/bin/python -m pytest tests/thirdparty

SEEDS ?= 100000
START ?= 0
simulate: $(NEWEST)/.installed ## Run many schedules in a simulated world (SEEDS, START); see tests/simulation/README.md
	$(NEWEST)/bin/python -m tests.simulation --seeds $(SEEDS) --start $(START)

bench: $(NEWEST)/.installed ## Run the benchmarks (15 minutes); benchmarks/RESULTS.md has the outcome
	$(NEWEST)/bin/python -m benchmarks

lint: $(NEWEST)/.installed ## Check style and types
	$(NEWEST)/bin/ruff check .
	$(NEWEST)/bin/ruff format --check .
	$(NEWEST)/bin/mypy

format: $(NEWEST)/.installed ## Format the code
	$(NEWEST)/bin/ruff check --fix .
	$(NEWEST)/bin/ruff format .

docs: $(NEWEST)/.installed ## Write the generated tables and build the site into docs/_build, offline and without warnings
	$(NEWEST)/bin/python -m scripts.generate_tables
	$(NEWEST)/bin/sphinx-build --quiet --fail-on-warning --keep-going --nitpicky --builder html docs docs/_build

clean: ## Remove everything that the targets create
	rm -rf .venv .venv-* .demo demo-output docs/_build dist .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(TESTED)/.installed: EXTRAS := $(if $(filter lowest,$(AIRFLOW)),dev,dev$(COMMA)dev-ai)
$(NEWEST)/.installed: EXTRAS := dev,dev-ai,dev-stores,docs
$(DEPLOY)/.installed: EXTRAS := deploy
$(TESTED)/.installed: tests/constraints/$(AIRFLOW).txt pyproject.toml
$(NEWEST)/.installed: tests/constraints/newest.txt pyproject.toml
$(DEPLOY)/.installed: tests/constraints/deploy.txt pyproject.toml

%/.installed:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit(f"Python >= 3.11 is needed; {sys.executable} is {sys.version.split()[0]}. Try: make PYTHON=python3.12")'
	@echo "Installing into $* (about a minute)"
	@$(PYTHON) -m venv --clear $*
	@$*/bin/python -m pip install --quiet --disable-pip-version-check --constraint $< hatchling editables
	@$*/bin/python -m pip install --quiet --disable-pip-version-check --constraint $< --no-build-isolation --editable '.[$(EXTRAS)]'
	@touch $@
