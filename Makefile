# Two commands on a fresh machine: `make demo` and `make test`. Needs python3.11+, pip, make, git.
#
# torch is installed first and is not in the lock: the CPU build where no NVIDIA driver is found, the
# CUDA build where one is. Everything else comes hash-checked from requirements.lock.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
TORCH_VERSION ?= 2.13.0
# PyTorch's own index of CPU wheels; used only where the configured index has no CPU build.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
HAS_NVIDIA := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 && echo yes)
STARTED := $(shell date +%s)

.PHONY: help install demo test test-all test-faults lint docs lock wheel sbom bench clean

help:
	@echo "make demo   the whole way on the embedded model (creates $(VENV) first)"
	@echo "make test   all tests, on the CPU, without network"
	@echo "make lint   ruff, mypy --strict, import-linter, translations"
	@echo "make docs   the manual in German and English, into build/docs/html"
	@echo "make test-faults   the long fault campaign of training; writes docs/reliability.md"
	@echo "make test-all | bench | lock | wheel | sbom | clean"

$(BIN)/python:
	@echo "== creating $(VENV) with $(PYTHON)"
	$(PYTHON) -m venv $(VENV)

$(VENV)/torch.done: | $(BIN)/python
	@echo "== installing torch $(TORCH_VERSION) ($(if $(HAS_NVIDIA),CUDA,CPU) build)"
ifeq ($(HAS_NVIDIA),yes)
	$(BIN)/pip install --quiet torch==$(TORCH_VERSION)
else
	$(BIN)/pip install --quiet "torch==$(TORCH_VERSION)+cpu" 2>/dev/null || \
	$(BIN)/pip install --quiet torch==$(TORCH_VERSION) --index-url $(TORCH_CPU_INDEX)
endif
	@touch $@

$(VENV)/installed.done: $(VENV)/torch.done requirements.lock pyproject.toml
	@echo "== installing locked requirements"
	$(BIN)/pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "== installed in $$(( $$(date +%s) - $(STARTED) )) s"

install: $(VENV)/installed.done

demo: install
	$(BIN)/hauslm demo
	@echo "== $$(( $$(date +%s) - $(STARTED) )) s in all"

test: install
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: install
	$(BIN)/python -m pytest -n 2

# About a quarter of an hour: 200 random kills, every save point, every fault of the table; writes docs/reliability.md.
test-faults: install
	$(BIN)/python scripts/reliability.py run

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	$(BIN)/python scripts/words.py check

# Sphinx, MyST and furo come with the lock (the extra `docs` is part of `dev`); no network is asked.
docs: install
	$(BIN)/python scripts/docs.py build
	@echo "== build/docs/html/en/index.html, build/docs/html/de/index.html"

# The CPU tables of docs/performance.md. TRL is compared with where TRL_PYTHON=/path/to/python has it; the corpus is
# ../shared/data where it is there. About half an hour on two quiet cores.
TRL_PYTHON ?=
BENCH := $(BIN)/python benchmarks/train_cpu.py $(if $(TRL_PYTHON),--trl-python $(TRL_PYTHON))
RESULTS := benchmarks/results

bench: install
	$(BENCH) --base embedded --json $(RESULTS)/train_cpu_embedded.json
	$(BENCH) --base mistral-30m --tokens 5000 --json $(RESULTS)/train_cpu_mistral-30m.json
	$(BENCH) --profile --json $(RESULTS)/train_profile.json
	$(BIN)/python benchmarks/scaling.py --json $(RESULTS)/scaling.json
	$(BIN)/python benchmarks/train_time.py --json $(RESULTS)/train_time.json
	$(BIN)/python scripts/performance.py page

# Maintainers only: needs uv. torch is left out on purpose (see the top of this file).
lock:
	uv pip compile pyproject.toml --extra dev --extra pdf --universal --python-version 3.11 \
	  --generate-hashes --override scripts/lock-overrides.txt --no-annotate --no-header --quiet -o requirements.lock

wheel: install
	$(BIN)/python -m build --no-isolation

sbom: install
	$(BIN)/python scripts/dependencies.py licences --check
	$(BIN)/python scripts/dependencies.py sbom build/sbom.cdx.json

clean:
	rm -rf build dist demo .mypy_cache .ruff_cache .pytest_cache
