# Two commands do everything on a machine with Python 3.11+ and make: `make deploy` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
# The Arm runtime that executes under qemu-user comes from the package index like everything else; without qemu or
# without it the emulated checks say `not_run` and why.
EMULATION := if command -v qemu-aarch64-static > /dev/null; then $(BIN)/python -m nwmctl.toolchains.emulation install || true; fi
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev
READY_TRAIN := $(VENV)/.ready-train
READY_BENCH := $(VENV)/.ready-bench
SOURCES := nwmctl tests examples benchmarks

# Two processes share the tests, file by file; a file's fixtures (compiled artifacts, servers) are made once.
SHARED := --numprocesses 2 --dist loadfile --durations 30

.PHONY: deploy test test-long lint format train train-short bench bench-compiler bench-validation wheel clean setup

deploy: $(READY)
	$(BIN)/nwmctl deploy examples/nwm-2.5/release.yaml

setup: $(READY_DEV)

test: $(READY_DEV) lint
	$(BIN)/python -m pytest --long sample $(SHARED)

test-long: $(READY_DEV) $(READY_TRAIN) lint
	$(BIN)/python -m pytest --long all $(SHARED)

lint: $(READY_DEV)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check --quiet $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache > $(VENV)/lint-imports.log || { cat $(VENV)/lint-imports.log; exit 1; }

format: $(READY_DEV)
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

wheel: $(READY_DEV)
	$(BIN)/python -m build --wheel --no-isolation

train: $(READY_TRAIN)
	$(BIN)/python -m examples.training.train --work examples/training/out/full

# The order of the stages, again, in about twenty minutes on two cores.
train-short: $(READY_TRAIN)
	$(BIN)/python -m examples.training.train --short --work examples/training/out/short

# Broken and clean artifacts against the checks, with fresh seeds; prints the table of benchmarks/RESULTS-validation.md.
bench-validation: $(READY_DEV)
	$(BIN)/python -m benchmarks.validation

# The compiler's figures: our artifact against others', the cost model, searches, executed instructions, a large model.
bench-compiler: $(READY_TRAIN) $(READY_BENCH)
	$(BIN)/python -m benchmarks.host
	$(BIN)/python -m benchmarks.cost
	$(BIN)/python -m benchmarks.instructions
	$(BIN)/python -m benchmarks.search --models example large --write
	$(BIN)/python -m benchmarks.large 0.1B 1B

bench: $(READY_BENCH)
	$(BIN)/python -m benchmarks.simulator
	$(BIN)/python -m benchmarks.checks
	$(BIN)/python -m benchmarks.deploy

$(READY): pyproject.toml constraints.txt
	@echo "setting up $(VENV) (about a minute the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; set PYTHON=...")'
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) --editable '.[iree,ptxas,logs]'
	@$(EMULATION)
	@touch $@

$(READY_DEV): $(READY)
	@$(INSTALL) --editable '.[iree,openvino,ptxas,logs,postgres,signatures,dev]'
	-@$(BIN)/python -m nwmctl.toolchains.emulation install
	@touch $@

$(READY_TRAIN): $(READY_DEV)
	@$(INSTALL) --editable '.[iree,openvino,ptxas,logs,postgres,signatures,dev,train]'
	@touch $@

$(READY_BENCH): $(READY_DEV)
	@$(INSTALL) --editable '.[iree,openvino,ptxas,logs,postgres,signatures,dev,bench]'
	@touch $@

clean:
	rm -rf .nwmctl dist build .mypy_cache .ruff_cache .pytest_cache
