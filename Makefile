# The first target that you make creates .venv and installs mjlab_rec into it: `make play` only what a
# task needs, the other targets also the tools for development.
#
#   make play       run a task, record it to HDF5, and read the file back
#   make test       run the tests, in two processes
#   make test-long  run all tests, also those that take long, with larger samples
#   make test-newest  run the tests that depend on MuJoCo with its newest release, in .venv-newest
#   make test-mjlab run the tests of recorders in mjlab itself, in .venv-mjlab; or with an environment
#                   that has mjlab 1.6.0 and this package: make test-mjlab MJLAB_PYTHON=/path/to/python
#   make test-readers  read exports with the libraries that they are for, in .venv-readers
#   make test-model record thousands of random rollouts and check every file
#   make check      lint, formatting and types
#   make bench      time the environment step
#   make docs       build the API reference in build/docs
#   make map        update the module list in mjlab_rec/README.md
#   make clean      remove .venv, .venv-newest, .venv-mjlab, .venv-readers and temporary files
#
# Another interpreter:          make play PYTHON=/opt/python3.12/bin/python3
# Another build of PyTorch:     make play TORCH_ARGS="--index-url URL", with a URL from pytorch.org's install page

VENV := .venv
BIN := $(VENV)/bin
READY_PLAY := $(VENV)/.ready-play
READY := $(VENV)/.ready
NEWEST := .venv-newest
MJLAB := .venv-mjlab
READERS := .venv-readers

# The first of these that is new enough and can create a virtual environment.
CANDIDATES := python3.13 python3.12 python3.11 python3 python
USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach p,$(CANDIDATES),$(shell $(p) -c '$(USABLE)' >/dev/null 2>&1 && echo $(p))))

# On Linux pip's default torch includes gigabytes of CUDA. PyTorch's own indexes have smaller builds.
TORCH_ARGS ?=

PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
NEWEST_PIP := $(NEWEST)/bin/python -m pip --disable-pip-version-check --quiet
MJLAB_PIP := $(MJLAB)/bin/python -m pip --disable-pip-version-check --quiet
TASK ?= cartpole-balance

# Tests start many processes. Python compiles everything in each of them if the environment sets this.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: play test test-long test-newest test-mjlab test-readers test-model check bench docs map clean

play: $(READY_PLAY)
	$(BIN)/python scripts/play.py --task $(TASK) --agent random --num-envs 64 --steps 1000 --record hdf5

# The tests of a file share environments, servers and compiled kernels, so they stay in one process.
WORKERS ?= 2
# If a process ends in the middle of a test, another one goes on, once.
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --max-worker-restart 1

# What tests/hangs.py cannot interrupt ends its process, with the tracebacks of all threads.
HANGS := -o faulthandler_timeout=900 -o faulthandler_exit_on_timeout=true
test: $(READY)
	$(PYTEST) $(HANGS)

test-long: $(READY)
	MJLAB_REC_LONG=1 $(PYTEST)

# Tests that depend on MuJoCo, with its newest release: the engine, an environment, recorders.
NEWEST_TESTS := $(addprefix tests/test_,newest.py sim_contract.py env.py recorders_truth.py)
test-newest: $(NEWEST)/.ready
	@$(NEWEST_PIP) freeze | grep -i '^mujoco\|^warp'
	$(NEWEST)/bin/python -m pytest $(NEWEST_TESTS) -k warp

# mjlab pins older versions of MuJoCo and RSL-RL than this package tests with.
ifdef MJLAB_PYTHON
test-mjlab:
else
MJLAB_PYTHON := $(MJLAB)/bin/python
test-mjlab: $(MJLAB)/.ready
endif
	$(MJLAB_PYTHON) -m pytest -W default tests/test_mjlab.py

# Libraries that read exports. LeRobot and robomimic need their own versions of other packages.
test-readers: $(READY) $(READERS)/.ready
	MJLAB_REC_READERS=$$(echo $(READERS)/*/bin/python | tr ' ' :) \
	  $(BIN)/python -m pytest tests/test_readers.py

# About an hour on one core; EXAMPLES=2000 for a shorter run.
EXAMPLES ?= 20000
test-model: $(READY)
	MJLAB_REC_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest tests/test_rollout_model.py tests/test_rollout_drops.py

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(READY)
	$(BIN)/python scripts/bench.py step

docs: $(READY)
	$(BIN)/python scripts/docs.py

map: $(READY)
	$(BIN)/python tests/test_map.py

clean:
	rm -rf $(VENV) $(NEWEST) $(MJLAB) $(READERS) build dist .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

NEED_PYTHON = @test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv is needed" \
  "(Debian and Ubuntu: apt install python3-venv). Or set one: make PYTHON=/path/to/python"; exit 1; }

# torch is installed first, so that the second command keeps this build.
$(READY_PLAY): pyproject.toml constraints.txt
	$(NEED_PYTHON)
	@echo "Installing into $(VENV) with $(PYTHON). This takes a few minutes, once."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --no-deps --constraint constraints.txt $(TORCH_ARGS) torch
	$(PIP) install --constraint constraints.txt --editable '.[cpu]'
	@touch $@

$(READY): $(READY_PLAY)
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@

LEARNING := minari h5py pillow torchrl webdataset pandas duckdb polars pyarrow
$(READERS)/.ready: pyproject.toml
	$(NEED_PYTHON)
	for name in learning robomimic lerobot; do $(PYTHON) -m venv $(READERS)/$$name || exit 1; done
	$(READERS)/learning/bin/python -m pip install --quiet $(TORCH_ARGS) torch $(LEARNING)
	$(READERS)/robomimic/bin/python -m pip install --quiet $(TORCH_ARGS) torch torchvision
	$(READERS)/robomimic/bin/python -m pip install --quiet robomimic==0.3.0
	$(READERS)/lerobot/bin/python -m pip install --quiet $(TORCH_ARGS) 'lerobot>=0.4,<0.5'
	@touch $@

# Without mjbatch, which needs the MuJoCo version of constraints.txt.
$(NEWEST)/.ready: pyproject.toml constraints.txt
	$(NEED_PYTHON)
	test -x $(NEWEST)/bin/python || $(PYTHON) -m venv $(NEWEST)
	grep -v '^mujoco\|^warp\|^mjbatch' constraints.txt > $(NEWEST)/constraints.txt
	$(NEWEST_PIP) install --no-deps --constraint $(NEWEST)/constraints.txt $(TORCH_ARGS) torch
	$(NEWEST_PIP) install --upgrade --constraint $(NEWEST)/constraints.txt mujoco mujoco-warp pytest --editable .
	@touch $@

# Without the extras [cpu] and [train], which need other versions than mjlab.
$(MJLAB)/.ready: pyproject.toml
	$(NEED_PYTHON)
	test -x $(MJLAB)/bin/python || $(PYTHON) -m venv $(MJLAB)
	$(MJLAB_PIP) install --no-deps $(TORCH_ARGS) torch
	$(MJLAB_PIP) install mjlab==1.6.0 pytest --editable '.[video,rerun]'
	@touch $@
