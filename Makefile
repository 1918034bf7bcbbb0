# `make help` lists what can be made. Everything runs from .venv, which `make setup` builds from
# constraints.txt and which is built again only when that file or pyproject.toml changes.

PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.prap-installed
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
WORKERS ?= 2
FUZZ_SECONDS ?= 300
ENGINES ?= 20
LAYERS ?= 20
SEED ?= 1
CROSSBAR ?= 256
SEEDS ?= 5
FPGA_STAMP := $(VENV)/.prap-fpga-installed
FORMAL_STAMP := $(VENV)/.prap-formal-installed
DOCS_STAMP := $(VENV)/.prap-docs-installed
TRAIN_STAMP := $(VENV)/.prap-train-installed
# Fine-tuning needs PyTorch; `make test TRAIN=0` leaves it and its tests out.
TRAIN ?= 1

.DEFAULT_GOAL := help
.PHONY: help check setup train demo headline bench test coverage test-long lint docs formal fuzz cosim-random faults schemes synth registers verilog-hashes mutate clean

help:
	@echo 'make setup   build .venv from the pinned versions (a minute or two)'
	@echo 'make demo    setup, then the whole path on the packaged network: build/demo/report.html'
	@echo 'make headline   setup, then the 1.64x and 1.51x of the paper by its own cost model: CROSSBAR (256)'
	@echo 'make bench   setup, then speed and memory of golden model and bulk tier, beside the targets'
	@echo 'make train   setup, then PyTorch, which prap finetune needs'
	@echo 'make test    setup, then the tests but the long ones; TRAIN=0: without PyTorch'
	@echo 'make coverage   the same with line coverage, which must stay at 90 % or above'
	@echo 'make test-long   setup, then what `make test` leaves out: larger networks, FPGA families'
	@echo 'make lint    setup, then ruff, import-linter and basedpyright'
	@echo 'make docs    setup, then the documentation: build/docs/index.html'
	@echo 'make formal  setup, then z3 and the proofs of the hardware, each with the mutants that it rejects'
	@echo 'make mutate  mutants of the hardware against its tests; hours, goes on where it was'
	@echo 'make fuzz    setup, then damaged files for FUZZ_SECONDS (300): findings in build/fuzz'
	@echo 'make cosim-random   setup, then random engines by random layers, with stalls and noise: ENGINES (20), LAYERS (20), SEED (1)'
	@echo 'make faults   setup, then every bit of a program in an engine'"'"'s memories flipped once: how many are found'
	@echo 'make schemes   setup, then all schemes on the same layers: cycles, conversions, index bits (NETWORK=FILE.onnx)'
	@echo 'make registers   setup, then the driver'"'"'s constants from prap_hw/shell/registers/prap_pim.rdl'
	@echo 'make synth   setup, then Yosys: faults and cells of the presets for four FPGA families; CLOCKS=1: and clocks'
	@echo 'make verilog-hashes   setup, then tests/verilog_hashes.json: after a change of the hardware'
	@echo 'make clean   remove what was generated: build/ and caches, but not .venv'
	@echo 'make PYTHON=python3.12 setup   uses another Python, 3.11 or newer'

# What the machine must have, asked for before anything is built.
check:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "prap: error: expected Python 3.11 or newer as '$(PYTHON)'," \
	    "found $$($(PYTHON) --version 2>/dev/null || echo none)" \
	    "(Debian: apt install python3 python3-venv)" >&2; exit 2; }
	@$(PYTHON) -I sim/builds/tools.py

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt | check
	@echo 'setup: virtual environment in $(VENV)'
	@$(PYTHON) -m venv $(VENV)
	@echo 'setup: installing the versions of constraints.txt'
	@$(PIP) install -c constraints.txt hatchling
	@$(PIP) install -c constraints.txt --no-build-isolation -e '.[dev]'
	@$(PIP) check
	@touch $@
	@echo 'setup: done'

train: $(TRAIN_STAMP)

$(TRAIN_STAMP): $(STAMP)
	@echo 'setup: PyTorch'
	@$(PIP) install -c constraints.txt --no-build-isolation -e '.[train]'
	@touch $@

demo: setup
	@$(VENV)/bin/prap demo

headline: setup
	@$(VENV)/bin/prap headline --crossbar $(CROSSBAR)

bench: setup
	@$(VENV)/bin/python benchmarks/bench.py $(JOBS)

test: setup $(FPGA_STAMP) $(if $(filter-out 0,$(TRAIN)),$(TRAIN_STAMP))
	@MPLBACKEND=Agg $(VENV)/bin/python -m pytest -n $(WORKERS) --dist worksteal -m 'not long' $(PYTEST_ARGS)

# The same tests with every line counted, which takes a good third longer.
coverage:
	@$(MAKE) --no-print-directory test \
	  PYTEST_ARGS="--cov --cov-report=term --cov-fail-under=90 $(PYTEST_ARGS)"

test-long: setup $(FPGA_STAMP) $(FORMAL_STAMP)
	@MPLBACKEND=Agg $(VENV)/bin/python -m pytest -n $(WORKERS) --dist worksteal -m long $(PYTEST_ARGS)

# The type checker reads PyTorch's own types.
lint: setup $(TRAIN_STAMP)
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/lint-imports --no-cache > build/layers.txt || { cat build/layers.txt; exit 1; }
	@$(VENV)/bin/basedpyright

docs: setup $(DOCS_STAMP)
	@DISABLE_MKDOCS_2_WARNING=true NO_MKDOCS_2_WARNING=true $(VENV)/bin/python -m mkdocs \
	  --quiet build --strict --clean -f docs/site/mkdocs.yml
	@echo 'documentation: build/docs/index.html'

# What builds the documentation comes with the first `make docs`, not with everybody's `make setup`.
# wavedrom has no wheel, and is built with setuptools-scm, which tells it its version.
$(DOCS_STAMP): $(STAMP)
	@$(PIP) install -c constraints.txt setuptools setuptools-scm
	@$(PIP) install -c constraints.txt --no-build-isolation -e '.[docs]'
	@touch $@

fuzz: setup
	@$(VENV)/bin/python -m tests.fuzz --seconds $(FUZZ_SECONDS) --workers $(WORKERS) $(FUZZ_ARGS)

cosim-random: setup
	@OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(VENV)/bin/python -m tests.campaign \
	  --engines $(ENGINES) --layers $(LAYERS) --seed $(SEED) --workers $(WORKERS) $(CAMPAIGN_ARGS)

faults: setup
	@OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(VENV)/bin/python -m tests.fault_campaign \
	  --damages 400 --seed $(SEED) $(FAULTS_ARGS)

schemes: setup
	@OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(VENV)/bin/python benchmarks/schemes.py \
	  $(if $(NETWORK),--network $(NETWORK)) $(SCHEMES_ARGS)

registers: setup
	@$(VENV)/bin/python -m prap_hw.shell.register_map

verilog-hashes: setup
	@$(VENV)/bin/python -m tests.verilog_hashes

synth: $(FPGA_STAMP)
	@$(VENV)/bin/python benchmarks/synth.py $(if $(CLOCKS),--seeds $(SEEDS)) $(SYNTH_ARGS)

$(FPGA_STAMP): $(STAMP)
	@echo 'setup: Yosys and nextpnr'
	@$(PIP) install -c constraints.txt --no-build-isolation -e '.[fpga]'
	@touch $@

formal: $(FORMAL_STAMP)
	@$(VENV)/bin/python -m tests.formal $(FORMAL_ARGS)

mutate: setup
	@$(VENV)/bin/python -m tests.mutation --workers $(WORKERS) $(MUTATE_ARGS)

$(FORMAL_STAMP): $(STAMP)
	@echo 'setup: Yosys and z3'
	@$(PIP) install -c constraints.txt --no-build-isolation -e '.[formal]'
	@touch $@

clean:
	@find build -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -rf {} +
	@rm -rf .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* dist
	@find refmodel prap_hw sim tests examples -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
	@echo 'clean: build/ and caches removed; .venv kept'
