# `make` alone lists what there is. Debian 12 or newer, as root or with sudo (for apt-get, only where something is missing).

PYTHON ?= python3
VENV := .venv
PARTS := .parts
RUN := $(VENV)/bin/
PYTEST = $(RUN)python -m pytest -q

# What `make lock` runs. Pinned: another version may order or mark the same pins differently.
UV := uv==0.13.8

unexport PYTHONPATH PYTHONHOME

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: parts ## Show it: a real Synapse, a real Prosody, four people (KEEP=1 stays up)
	@$(RUN)python -m tests.demo $(if $(KEEP),--keep)

test: parts ## Everything: lint, lua, unit, contract, packaging, faults, e2e. OTHER_PYTHONS=1 adds test-pythons
	@tests/run_steps.sh "contract e2e" "lint lua unit fuzz-short packaging faults $(if $(OTHER_PYTHONS),test-pythons)"

unit: venv ## The Python unit tests
	@$(PYTEST) tests/unit

contract: venv synapse ## The wire API, against the fake homeserver and against a real Synapse
	@$(PYTEST) tests/contract

lua: venv prosody ## The pure Lua library: its examples, and its codecs against Python's
	@lua5.4 "$$(command -v busted)" --output=plainTerminal tests/lua
	@$(PYTEST) tests/lua

packaging: parts ## Wheel, locks, README, unit files, nginx and Caddy lines
	@$(PYTEST) tests/packaging

e2e: parts ## People, calls and attacks on a real Synapse and both Prosody versions
	@$(PYTEST) tests/e2e

faults: parts ## Every fault of homeservers and networks on real sockets, and a short soak
	@$(PYTEST) tests/faults tests/soak

soak: parts ## The long runs: 100,000 mixed requests, every fault with 500 people at once, then fuzz
	@$(RUN)python -m tests.soak
	@$(PYTEST) tests/faults --every
	@$(MAKE) --no-print-directory fuzz

lint: venv synapse prosody tools ## ruff, mypy, import-linter, luacheck, shellcheck
	@failed=0; check() { echo "$$*"; "$$@" || failed=1; }; \
	check $(RUN)ruff check -q .; \
	check $(RUN)ruff format -q --check .; \
	check $(RUN)mypy; \
	check $(RUN)mypy --python-executable $(PARTS)/synapse/bin/python --cache-dir .mypy_cache/synapse synapse_module; \
	check $(RUN)mypy --python-executable $(PARTS)/synapse-oldest/bin/python --cache-dir .mypy_cache/oldest synapse_module; \
	check $(RUN)lint-imports --no-cache --no-logo; \
	check luacheck -q prosody_lua tests/lua tests/parts/prosody_plugins; \
	check $(PARTS)/tools/usr/bin/shellcheck --severity=warning .ci/run requirements/*.sh tests/*.sh tests/*/*.sh; \
	exit $$failed

fuzz-short: parts ## Some thousand inputs to every parser of what others write
	@$(PYTEST) tests/fuzz

fuzz: parts ## A million to each, hours (TARGETS="…", UVS_FUZZ_RUNS, UVS_FUZZ_SEED, UVS_FUZZ_JOBS)
	@nice -n 19 $(RUN)python -m tests.fuzz $(TARGETS)

bench: venv ## Measure the service against a stub homeserver (REFERENCE=file, ROWS="…": benchmarks/README.md)
	@$(RUN)python -m benchmarks $(if $(REFERENCE),--reference $(REFERENCE)) $(addprefix --only ,$(ROWS))

bench-crowd: parts ## 2,000 people join a conference within ten seconds, on a real Synapse
	@$(RUN)python -m benchmarks.crowd

proofs: venv ## The image and the systemd unit, built and run without a container engine (root, two minutes)
	@$(RUN)python -m pytest -v tests/packaging/image_proof.py tests/packaging/unit_proof.py

SUPPORTED := 3.11 3.12 3.13 3.14
test-pythons: ## Unit and contract tests on every other supported Python found here
	@tests/packaging/other_pythons.sh $(PYTHON) $(SUPPORTED)

lock: ## Write requirements/*.lock anew (UPGRADE=1: with the newest versions)
	@[ -x $(PARTS)/lock/bin/uv ] || { $(PYTHON) -m venv $(PARTS)/lock && $(PARTS)/lock/bin/pip install -qq $(UV); }
	@set -e; cd requirements; compile() { echo "$$*"; ../$(PARTS)/lock/bin/uv pip compile -q --no-config --universal \
	  --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
	  $(if $(UPGRADE),--upgrade) "$$@"; }; \
	compile ../pyproject.toml --extra redis -o service.lock; \
	compile ../pyproject.toml --extra redis --extra dev -c service.lock -o dev.lock; \
	compile build.in -c dev.lock -o build.lock; \
	compile synapse.in -o synapse.lock; \
	compile synapse-oldest.in -o synapse-oldest.lock

# --- what the targets above need; each does nothing where nothing changed ---

parts: venv synapse prosody tools

venv:
	@requirements/venv.sh $(VENV) $(PYTHON) requirements/dev.lock requirements/build.lock
	@[ $(VENV)/.editable -nt pyproject.toml ] || { \
	  $(RUN)pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e . && touch $(VENV)/.editable; }

synapse:
	@requirements/venv.sh $(PARTS)/synapse $(PYTHON) requirements/synapse.lock
	@requirements/venv.sh $(PARTS)/synapse-oldest $(PYTHON) requirements/synapse-oldest.lock

prosody:
	@tests/parts/install_prosody.sh $(PARTS)

tools:
	@tests/packaging/install_tools.sh $(PARTS)/tools

clean: ## Remove all that was made here
	rm -rf .venv .parts build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help demo test faults soak unit contract lua packaging e2e lint fuzz fuzz-short bench bench-crowd proofs test-pythons lock clean parts venv synapse prosody tools
