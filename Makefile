# `make demo` and `make test` set everything up by themselves, in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export TOKENIZERS_PARALLELISM := false
export HF_HUB_OFFLINE := 1

.PHONY: install demo test test-all test-browser bench-browser check-web host-record check clean

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
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not long and not browser" --timeout 300 -n 2 --dist loadgroup

# the record that docs/host-run.json keeps of the last run in a real ComfyUI
host-record: install
	$(BIN)/pytest tests/host --record docs/host-run.json

test-all: install
	$(BIN)/pytest -m long --timeout 1500

# Chromium and the type checker for web/: without npm or a network, what needs them says so and is skipped
WEB := tests/web/node_modules
.PHONY: web-modules
web-modules: $(WEB)/.installed

$(WEB)/.installed: tests/web/package.json tests/web/package-lock.json
	@if ! command -v npm >/dev/null; then echo "no npm found: the browser tests and check-web are skipped"; \
	elif npm ci --prefix tests/web --no-audit --no-fund --loglevel=error; then touch $@; \
	else echo "npm could not install what tests/web/package.json names: what needs it is skipped"; fi

# the feature browser in a real ComfyUI and Chromium, with the classic and the newer nodes: 3 minutes on 2 cores
test-browser: install web-modules
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/web -m browser

bench-browser: install web-modules
	$(BIN)/python benchmarks/browser.py

check-web: web-modules
	@if [ -x $(WEB)/.bin/tsc ]; then $(WEB)/.bin/tsc -p web/tsconfig.json && echo "web/: types are right"; \
	else echo "check-web: skipped, no TypeScript found: run \`npm ci --prefix tests/web\`"; fi

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
