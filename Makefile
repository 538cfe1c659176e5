# `make demo` and `make test` do all the set-up themselves; nothing is done twice.

# The interpreter that the virtual environment is made with: 3.11 or newer
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: demo test test-slow drop-in check clean

demo: .venv/.installed
	$(BIN)/subarch demo

# HF_HUB_OFFLINE: no test may need a network
test: .venv/.installed
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2

# What the other leaves out, since it takes long and few changes touch it
test-slow: .venv/.installed
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 -m slow

# Environments of the programs that take our files, for the slow tests of test_drop_in.py
drop-in: .venv/.installed
	.ci/drop-in

check: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/.installed: pyproject.toml requirements.lock
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	    { echo "subarch needs Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet 'pip>=24'
	$(BIN)/python -m pip install --constraint requirements.lock --editable '.[demo,dev,mteb,onnx,openvino,postgresql,ray]'
	touch $@

# Results in runs/ are kept
clean:
	rm -rf .venv dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
