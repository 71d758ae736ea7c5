# DMMA: `make demo` runs the full chain, `make test` checks it. Both need Python 3.11 or 3.12 and nothing else.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH  ?= cpu
CLIPS  ?=
BIN    := .venv/bin

# The CPU build of torch is not on PyPI; it needs no CUDA packages. `make setup TORCH=cuda` installs PyPI's CUDA build.
TORCH_VERSION := $(shell sed -n 's/^torch==//p' requirements.lock)
TORCHVISION_VERSION := $(shell sed -n 's/^torchvision==//p' requirements.lock)
PIP := $(BIN)/python -m pip install --disable-pip-version-check
# Shows of pip's output what it downloads, with sizes, and when it installs. Its warnings and errors are not filtered.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
SHOWN := sed -unE -e 's/^ +Downloading (.*)/           \1/p' -e 's/^Installing collected packages.*/           installing .../p'

.PHONY: help setup demo test check bench pictures clean

help:
	@echo "make setup              .venv with the locked dependencies (TORCH=cuda for the CUDA build)"
	@echo "make demo               the full chain on rendered clips, ends with the comparison of baseline and depth"
	@echo "make demo CLIPS=folder  the same on your own videos"
	@echo "make check              lint, types, import rules, dependencies, every shipped YAML"
	@echo "make test               make check, then all other tests"
	@echo "make bench              the figures of docs/performance.md"
	@echo "make pictures           the pictures of README and docs, from a demo of this version (needs Chromium)"

setup: .venv/ready-$(TORCH)

.venv/ready-$(TORCH): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 13) else "DMMA needs Python 3.11 or 3.12, this is " + sys.version.split()[0] + ". Give another with PYTHON=...")'
	@date '+%T  [1/3] Creating .venv (all three steps take a few minutes the first time) ...'
	@$(PYTHON) -m venv .venv
	@date '+%T  [2/3] torch $(TORCH_VERSION) for $(TORCH) ...'
ifeq ($(TORCH),cpu)
	@$(PIP) --no-deps --retries 1 --extra-index-url https://download.pytorch.org/whl/cpu \
		torch==$(TORCH_VERSION)+cpu torchvision==$(TORCHVISION_VERSION) | $(SHOWN)
else
	@$(PIP) --constraint requirements.lock torch torchvision | $(SHOWN)
endif
	@date '+%T  [3/3] DMMA and the other libraries ...'
	@$(PIP) --constraint requirements.lock --editable '.[dev]' | $(SHOWN)
	@date '+%T  Ready. To use the commands: source .venv/bin/activate'
	@rm -f .venv/ready-*
	@touch $@

demo: setup
	@$(BIN)/dmma demo $(if $(CLIPS),clips='$(CLIPS)')

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry dmma_core ray_jobs
	$(BIN)/deptry tests benchmarks docs --exclude .venv --ignore DEP002,DEP004
	$(BIN)/pytest -q tests/contracts

test: check
	$(BIN)/pytest --durations=15 --ignore tests/contracts

bench: setup
	$(BIN)/python -m benchmarks.chain
	$(BIN)/python -m benchmarks.networks

pictures: demo
	$(BIN)/python -m docs.pictures.packages
	$(BIN)/python -m docs.pictures.screenshots comparison/demo/report.html runs/demo

clean:
	rm -rf .venv
