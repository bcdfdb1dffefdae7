# The Python that makes the environments; `make PYTHON=python3.12 setup` names another one
PYTHON ?= python3
export PYTHON
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-latest docs clean

help:
	@echo "make demo         train and report on a drawn collection (installs what it needs into .venv)"
	@echo "make setup        .venv with all that development needs"
	@echo "make test         every check and test, as CI runs them"
	@echo "make test-latest  the tests of the package beside the newest fastai, in .venv-latest"
	@echo "make docs         the documentation site, in _docs"
	@echo "make clean        remove what the other targets made"

# The stamps are newer than settings.ini, which names the requirements, so nothing is installed twice.
# All that the demo needs is also in the dev extra
.venv/.runtime: settings.ini setup.py
	@echo "Installing snakeid into .venv: about 1 to 4 minutes, about 5.5 GB"
	@bash .ci/venv.sh .venv -e .
	@touch $@

.venv/.dev: settings.ini setup.py
	@echo "Installing snakeid and its development tools into .venv: about 1 to 4 minutes, about 5.5 GB"
	@bash .ci/venv.sh .venv -e '.[dev]'
	@touch .venv/.runtime $@

.venv-latest/.ready: settings.ini setup.py
	@echo "Installing snakeid beside the newest fastai into .venv-latest: about 1 to 4 minutes, about 5.5 GB"
	@bash .ci/venv.sh .venv-latest -e . pytest pytest-timeout pytest-xdist hypothesis
	@touch $@

setup: .venv/.dev

demo:
	@echo "First an installation into .venv, unless it is there: about 1 to 4 minutes and about 5.5 GB."
	@echo "Then the demo: under 10 minutes on two cores. It needs no GPU and no further downloads."
	@$(MAKE) --silent --no-print-directory .venv/.runtime
	@$(BIN)/snakeid demo

test:
	@bash .ci/run

test-latest: .venv-latest/.ready
	@.venv-latest/bin/python -c "from importlib.metadata import version as v; print('fastai', v('fastai'), 'with fastcore', v('fastcore'))"
	@.venv-latest/bin/python -m pytest tests --ignore tests/test_notebooks.py -n 2 --dist loadfile -q

docs: .venv/.dev
	@$(BIN)/python .ci/docs.py

clean:
	rm -rf .venv .venv-latest _proc _docs build dist nbs/sidebar.yml snakeid.egg-info .pytest_cache .ruff_cache .hypothesis
	find snakeid tests .ci nbs -name __pycache__ -type d -prune -exec rm -rf {} +
