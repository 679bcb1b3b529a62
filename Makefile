# People and CI call the same targets: green here is green there. `make` alone lists them.

PYTHON ?=
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
ARGS ?=
WORKERS ?= 3

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STAMP := .venv/.setup-$(shell cat pyproject.toml constraints.txt 2>/dev/null | cksum | cut -d' ' -f1)

BENCHES := micro control_plane sampling games pixel_speed cost side_by_side reward_alone learning novel

.DEFAULT_GOAL := help
.PHONY: help setup system demo test fuzz check bench bench-quick format docs-config constraints clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=python3.12    the interpreter of .venv (default: the newest of 3.13, 3.12, 3.11 that runs)"
	@echo "  TORCH_INDEX=URL      where torch comes from (default: the CPU builds; another one for your CUDA)"
	@echo "  ARGS='-k queue -x'   passed to pytest by make test"
	@echo "  WORKERS=0            of make test, side by side (default: 3; 0: none, as a debugger wants it)"

setup: $(STAMP) ## make .venv and install everything, once per change of the versions

# Torch goes first and alone: on the default index even a CPU machine gets the CUDA packages, so the CPU index
# is asked too. Where that cannot be reached, pip warns after one retry and takes what it finds.
$(STAMP): pyproject.toml constraints.txt
	@PYTHON='$(PYTHON)' .ci/venv .venv
	$(PIP) install --quiet --no-deps --retries 1 --extra-index-url $(TORCH_INDEX) "$$(grep '^torch==' constraints.txt)"
	$(PIP) install --quiet -c constraints.txt -e '.[envs,dev]'
	@rm -f .venv/.setup-* && touch $@

system: # what tests need of the system, where that can be installed
	@.ci/system

demo: setup ## train a policy from synthetic preferences, and on the env reward to compare: 2-3 minutes on two cores
	$(BIN)/rlhp compare configs/demo.yaml

test: setup system ## every test
	$(BIN)/pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder $(ARGS)

fuzz: setup system ## the fuzz tests with ten times their examples: a quarter of an hour
	RLHP_FUZZ=10 $(BIN)/pytest -m fuzz $(ARGS)

check: setup ## lint, format, types, import direction, generated pages; seconds, and changes nothing
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(BIN)/python -m rlhp.cli.reference | diff -u docs/configuration.md - \
		|| { echo "docs/configuration.md is behind rlhp/config/schema.py: run make docs-config" >&2; exit 1; }

bench: setup ## measure what is missing in benchmarks/results, then write docs/benchmarks.md: hours, alone
	for bench in $(BENCHES); do $(BIN)/python -m benchmarks.$$bench || exit 1; done
	$(BIN)/python -m benchmarks.pong
	$(BIN)/python -m benchmarks.atari_memory
	$(BIN)/python -m benchmarks.rendering
	$(BIN)/python -m benchmarks.key_press
	$(BIN)/python -m benchmarks.labelers --watching 450
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.by_page
	$(BIN)/python -m benchmarks.resume_trials
	$(BIN)/python -m benchmarks.chaos
	$(BIN)/python -m benchmarks.novel_clip
	$(BIN)/python -m benchmarks.report

bench-quick: setup ## a small part of every bench, printed and not kept
	for bench in $(BENCHES); do $(BIN)/python -m benchmarks.$$bench --quick || exit 1; done

format: setup ## rewrite the sources as make check wants them
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs-config: setup ## write docs/configuration.md from rlhp/config/schema.py
	$(BIN)/python -m rlhp.cli.reference > docs/configuration.md

constraints: setup ## resolve every dependency anew into constraints.txt
	$(BIN)/python .ci/constraints.py

clean: ## remove .venv and caches; runs/ stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	find . -name __pycache__ -not -path './runs/*' -prune -exec rm -rf {} +
