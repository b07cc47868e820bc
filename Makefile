# `make demo` and `make test` set everything up by themselves, in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export TOKENIZERS_PARALLELISM := false
export HF_HUB_OFFLINE := 1

.PHONY: install demo test test-all host-record check clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: install
	$(BIN)/fluxtionary demo --out demo-output --overwrite

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .

test: check
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not long" --timeout 300 -n 2 --dist loadgroup

# the record that docs/host-run.json keeps of the last run in a real ComfyUI
host-record: install
	$(BIN)/pytest tests/host --record docs/host-run.json

test-all: install
	$(BIN)/pytest -m long --timeout 1500

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
