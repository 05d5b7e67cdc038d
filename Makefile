# One command sets everything up: the first target that you make creates .venv and installs into it.
#
#   make play     run a task and print its returns
#   make test     run the tests
#   make check    lint, formatting and types
#   make bench    time the environment step
#   make map      bring the map in mjlab_rec/README.md up to date
#   make clean    remove .venv and what the tools left behind
#
# With an NVIDIA GPU, take PyTorch's CUDA build:  make play TORCH_INDEX=https://download.pytorch.org/whl/cu130
# Another interpreter:                            make play PYTHON=/opt/python3.12/bin/python3

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# The first of these that is new enough and can make a virtual environment.
CANDIDATES := python3.13 python3.12 python3.11 python3 python
USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach p,$(CANDIDATES),$(shell $(p) -c '$(USABLE)' >/dev/null 2>&1 && echo $(p))))

# On Linux the torch of PyPI brings gigabytes of CUDA along; this index has the build for the CPU.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
TASK ?= cartpole-balance

.PHONY: play test check bench map clean

play: $(READY)
	$(BIN)/python scripts/play.py --task $(TASK) --agent random --num-envs 64 --steps 1000

test: $(READY)
	$(BIN)/python -m pytest

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(READY)
	$(BIN)/python scripts/bench.py step

map: $(READY)
	$(BIN)/python tests/test_house.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first and alone, so that the second command finds it there and keeps that build.
$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv is needed" \
	  "(Debian and Ubuntu: apt install python3-venv). Or name one: make PYTHON=/path/to/python"; exit 1; }
	@echo "Installing into $(VENV) with $(PYTHON): once, a few minutes."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --timeout 15 --retries 2 --no-deps --constraint constraints.txt --extra-index-url $(TORCH_INDEX) torch
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@
