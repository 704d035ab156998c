# Everything a newcomer needs; nothing but Python 3.11 and make has to be there.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=
# Two workers on two cores; PYTEST_WORKERS=0 runs in one process, for a debugger.
PYTEST_WORKERS ?= 2

.PHONY: help install demo test fuzz e2e bench bench-check image lint format proto lock figures clean

help:  ## what can be made
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): locks/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "gputopo needs Python 3.11 or newer; $(PYTHON) is older (set PYTHON=...)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

install: $(STAMP)  ## set up .venv with the command .venv/bin/gputopo

demo: install  ## the main job on an embedded cluster; ARGS="--nodes 20 --pods 100" passes options on
	$(BIN)/gputopo demo $(ARGS)

test: install  ## all tests; ARGS="-k quality" passes options on
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist worksteal $(ARGS)

fuzz: install  ## the laws alone, on new examples and more of them
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist worksteal -m hypothesis --hypothesis-profile=fuzz --timeout=1800 $(ARGS)

e2e: install  ## the same on real Kubernetes components; needs root and, the first time, Go
	$(BIN)/python -m tests.e2e.run $(ARGS)

image: install  ## the image of both daemons as an OCI archive, without a container daemon or root
	@$(BIN)/python -m daemonset.images.gputopo $(ARGS)

bench: install  ## tables of what it costs, beside peers; QUICK=1 for a short run, ARGS="plugin" for a section, OPENB=folder
	$(BIN)/python -m tests.bench.run $(if $(QUICK),--quick) $(ARGS)

bench-check: install  ## the same, and an error where a row misses its budget time and again
	$(BIN)/python -m tests.bench.run $(if $(QUICK),--quick) --check $(ARGS)

lint: install  ## formatting, lint, types, layers, docstrings, spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/interrogate --quiet topology runtime mock_nvml deviceplugin scheduler embedded traces cli daemonset tests
	$(BIN)/typos

format: install  ## let ruff format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: install  ## generate the gRPC code anew from proto/
	$(BIN)/python proto/generate.py

lock:  ## resolve the dependencies anew (needs uv); --upgrade by ARGS
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --group dev --extra tracing pyproject.toml -o locks/dev.txt $(ARGS)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --extra tracing pyproject.toml -o locks/runtime.txt $(ARGS)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --group pyproject.toml:build -c locks/dev.txt -o locks/build.txt $(ARGS)

figures: install  ## tables and plots of docs/simulation.md; OPENB is the folder of the lists
	$(BIN)/python -m tests.bench.figures $(OPENB) $(ARGS)

clean:  ## remove what was made here
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
