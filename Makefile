# Everything lives in this checkout: the environment in .venv, run history in .prefect.
PYTHON ?= python3.11
# The torch build. CPU machines: the pinned version (pip takes a CPU build where the index offers one).
# Otherwise: make quickstart TORCH="torch==2.13.0 --index-url <index of your build>"
TORCH ?= torch==2.13.0
# Test processes. Each computes with one thread.
JOBS ?= 2
BIN := .venv/bin
# The tests of `make check`: half a minute in all.
QUICK := $(addprefix tests/unit/tasks/stores/test_,cached_record.py filesystem.py patch_store.py shard_file.py) \
	tests/unit/tasks/corpus/test_plan.py tests/unit/pngmodel/statistics tests/unit/pngmodel/test_bundle.py \
	$(addprefix tests/unit/pngmodel/network/test_,autoencoder.py consistency.py model.py prompts.py transformer.py)
PIP_FLAGS := --quiet --disable-pip-version-check --no-cache-dir
STAMP := .venv/installed

export PREFECT_HOME := $(CURDIR)/.prefect
export PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS := 120
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
export MPLCONFIGDIR := $(CURDIR)/.venv/matplotlib

.PHONY: help install quickstart ui up down status test test-unit check lint format reference pictures faults fuzz bench lock audit clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

# pip and not uv, so that only Python, git and make have to be there. First what the lock knows, each file by its sha256;
# then torch, whose build depends on the machine; then what another system or Python needs beyond, by version.
$(STAMP): pyproject.toml constraints.txt requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python 3.11+ or run make PYTHON=python3"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install $(PIP_FLAGS) --require-hashes --no-deps -r requirements.lock
	$(BIN)/pip install $(PIP_FLAGS) $(TORCH)
	$(BIN)/pip install $(PIP_FLAGS) --no-build-isolation -c constraints.txt -e ".[dev]"
	@touch $(STAMP)

install: $(STAMP) ## create .venv with everything (done by the other targets when needed)

quickstart: $(STAMP) ## the main job on shipped data: a corpus with report under ./quickstart
	$(BIN)/pngnoise quickstart --output ./quickstart

ui: $(STAMP) ## Prefect's UI with the history of this checkout's runs
	@echo "open http://127.0.0.1:4200 (Ctrl-C stops it)"
	$(BIN)/prefect server start --host 127.0.0.1 --port 4200

up: $(STAMP) ## the team's stack on this machine: Prefect, S3, workers, deployments; prints the URLs
	$(BIN)/python -m infra.local up

down: $(STAMP) ## end exactly what `make up` started; its data stay in .stack
	$(BIN)/python -m infra.local down

status: $(STAMP) ## which parts of the stack run, and where
	$(BIN)/python -m infra.local status

test: $(STAMP) ## all tests that run on any machine
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS)

test-unit: $(STAMP) ## the tests that take seconds
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) tests/unit

check: lint ## before every commit: lint, and the quickest tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) $(QUICK)

lint: $(STAMP) ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## rewrite files in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

faults: $(STAMP) ## long: kills, faulty storage and disks, policies on a real gateway (apt: radosgw ceph-mon ceph-mgr ceph-osd)
	PNGNOISE_FAULT_RESULTS=$(CURDIR)/fault-results OMP_NUM_THREADS=1 $(BIN)/pytest tests/campaigns

fuzz: $(STAMP) ## long: hostile inputs to every reader, a minute each; prints counts, keeps what fails in fuzz-findings
	OMP_NUM_THREADS=1 $(BIN)/python tests/campaigns/fuzz.py --seconds 60 --output fuzz-findings

pictures: $(STAMP) ## take docs/pictures/ anew: a stack from nothing, real runs, a real browser (apt: chromium chromium-driver)
	PNGNOISE_BROWSER=chromium PNGNOISE_PICTURES=docs/pictures OMP_NUM_THREADS=1 $(BIN)/pytest tests/browser

reference: $(STAMP) ## rewrite docs/reference/ from the models of configuration
	$(BIN)/python -m flows.docs.reference

bench: $(STAMP) ## long: generation beside the baselines and NAFlow, corpora at scale; ratios within one run
	$(BIN)/python -m benchmarks.generation
	$(BIN)/python -m benchmarks.naflow
	$(BIN)/python -m benchmarks.corpora all

UV_COMPILE := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-package torch \
	--no-annotate --custom-compile-command "make lock" --quiet --upgrade -c constraints.txt

lock: ## maintainers: rewrite the locks after a change of dependencies or constraints; needs uv and the package index
	$(UV_COMPILE) --extra dev --extra build -o requirements.lock
	$(UV_COMPILE) --extra hpc --extra gpu --extra build -c infra/docker/constraints-hpc.txt -o infra/docker/requirements.lock

# In an environment of its own: its dependencies are not to decide ours.
audit: ## known vulnerabilities of everything that the locks pin; needs the network
	$(PYTHON) -m venv .venv/audit
	.venv/audit/bin/pip install $(PIP_FLAGS) pip-audit==2.10.0
	.venv/audit/bin/pip-audit --disable-pip --require-hashes -r requirements.lock
	.venv/audit/bin/pip-audit --disable-pip --require-hashes -r infra/docker/requirements.lock

clean: ## remove the environment, run history and quickstart's corpus
	rm -rf .venv .prefect quickstart
