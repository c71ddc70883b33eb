# The two commands: `make demo` shows the main job for real, `make test` tests everything.
# Each needs only Python >= 3.11 and make, installs into this folder, and leaves no process behind.

PYTHON ?= python3
NEWEST := .venv
LOWEST := .venv-lowest
TWO := --numprocesses 2 --dist loadscope

.PHONY: demo test test-lowest simulate bench docs lint clean

demo: $(NEWEST)/.installed
	@$(NEWEST)/bin/python -m scripts.demo

# Two processes: one has the running Airflow, which mostly waits, the other all the rest.
test: $(NEWEST)/.installed
	$(NEWEST)/bin/python -m pytest $(TWO) --cov --cov-report=term

# The same tests on the lowest supported Airflow, but for those of parts that know nothing of Airflow, and for the
# simulation, which has an Airflow of its own.
test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest $(TWO) --ignore tests/emulator --ignore tests/simulation --ignore tests/unit/test_estimator.py

# Many schedules of the package in a simulated world, from seed START on; tests/simulation/README.md says more.
SEEDS ?= 100000
START ?= 0
simulate: $(NEWEST)/.installed
	$(NEWEST)/bin/python -m tests.simulation --seeds $(SEEDS) --start $(START)

# A quarter of an hour; benchmarks/RESULTS.md holds the outcome.
bench: $(NEWEST)/.installed
	$(NEWEST)/bin/python -m benchmarks

lint: $(NEWEST)/.installed
	$(NEWEST)/bin/ruff check .
	$(NEWEST)/bin/ruff format --check .
	$(NEWEST)/bin/mypy

# The README's table of models and parameters.
docs: $(NEWEST)/.installed
	$(NEWEST)/bin/python -m scripts.generate_model_table

clean:
	rm -rf $(NEWEST) $(LOWEST) .demo demo-output dist .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(NEWEST)/.installed: tests/constraints/newest.txt pyproject.toml
$(LOWEST)/.installed: tests/constraints/lowest.txt pyproject.toml

%/.installed:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit(f"Python >= 3.11 is needed; {sys.executable} is {sys.version.split()[0]}. Try: make PYTHON=python3.12")'
	@echo "Installing into $* (about a minute)"
	@$(PYTHON) -m venv --clear $*
	@$*/bin/python -m pip install --quiet --disable-pip-version-check --constraint $< hatchling editables
	@$*/bin/python -m pip install --quiet --disable-pip-version-check --constraint $< --no-build-isolation --editable '.[dev]'
	@touch $@
