# `make setup` once; every other target runs it when .venv is missing or constraints have changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo test test-all check format bench clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; set PYTHON=…")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/spikeless compare deep_nano --arms "baseline; mlra; scaled_embed; mlra+scaled_embed" --out runs/demo

# Two processes of one thread each: small models gain nothing from threads, and waiting ones steal time.
test: setup
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

test-all: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[lm-eval]'
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist loadfile

check: setup
	$(BIN)/ruff format --check src tests benchmarks studies
	$(BIN)/ruff check src tests benchmarks studies
	$(BIN)/pyright
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format src tests benchmarks studies
	$(BIN)/ruff check --fix src tests benchmarks studies

# NANOGPT=DIR: a checkout of nanoGPT, to be measured against as well.
bench: setup
	$(BIN)/python benchmarks/diagnostics_cost.py
	$(BIN)/python benchmarks/data_reading.py
	$(BIN)/python benchmarks/tokenising.py
	$(BIN)/python benchmarks/tev_cost.py
	$(BIN)/python benchmarks/audit_cost.py
	$(BIN)/python benchmarks/grid_overhead.py
	$(BIN)/python benchmarks/start_time.py
	$(BIN)/python benchmarks/training_speed.py $(if $(NANOGPT),--nanogpt '$(NANOGPT)')

clean:
	rm -rf $(VENV) runs .pytest_cache .ruff_cache
