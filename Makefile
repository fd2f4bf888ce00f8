# Everything runs from .venv, which `make` creates; nothing is installed outside the repository.
# Needs Python 3.11 or newer with its venv module, and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# what a demo needs is installed first and is a fraction of what tests need
RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-input -c constraints.txt
# at a time on two cores: tests wait a third of their time, and drills, which come last, three quarters of it
WORKERS ?= 5
DRILLS ?= 5
PYTEST = $(BIN)/python -m pytest --dist load --maxschedchunk 1
PACKAGES := protocol hub station drill firmware/emulator firmware/tools firmware/boards

.PHONY: help
help:
	@echo "make demo        the whole chain on this machine: badge panel and operator's console in the browser"
	@echo "make demo HEADLESS=1   the same as a short story told on the terminal"
	@echo "make test        checks, then every test and drill"
	@echo "make test-bluez  the hub on the real Linux Bluetooth stack, booted in qemu"
	@echo "make check       style, types, and the badge's files compiled for the badge"
	@echo "make bench       every figure that is promised, measured, as JSON"
	@echo "make bench-hub   the hub's own figures: passing, among sound, after an outage"
	@echo "make kill-test   a hub killed at every point of its code and at random (RUNS=300), and what was lost"
	@echo "make size        flash and memory that the badge's application takes, as JSON"
	@echo "make card        the wearer's card, one side of A5 to print (docs/wearer-card.html)"
	@echo "make soak        all drills ten times in random order with random seeds (ROUNDS=10)"
	@echo "make pictures    the drawings and screenshots of the documentation"
	@echo "make drawings    only the drawings, from the tables of the state machines"
	@echo "make vectors     the test vectors of the protocol, after a wanted change of it"
	@echo "make fuzz        random bytes for every decoder, on both interpreters (SECONDS=60)"
	@echo "make hardware    board, case and power model of the badge, compared with what is committed (KiCad 9)"
	@echo "make clean       removes the environment and everything that was built"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; give one with: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "Python's venv module is missing; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

$(RUNTIME): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing what the parts need into $(VENV) ..."
	@$(PIP) -e '.[drill]'
	@touch $@

$(DEV): $(RUNTIME)
	@echo "installing what tests need into $(VENV) ..."
	@$(PIP) -e '.[dev]'
	@$(PIP) --no-deps --upgrade --target $(VENV)/typings micropython-esp32-stubs micropython-stdlib-stubs
	@touch $@

.PHONY: venv
venv: $(DEV)

.PHONY: demo
demo: $(RUNTIME)
	@exec $(BIN)/tocsin-drill demo $(if $(filter-out 0,$(HEADLESS)),--headless)

.PHONY: test
test: check
	@status=0; \
	$(PYTEST) -n $(WORKERS) --ignore tests/bluez --ignore tests/drills/test_drills.py || status=1; \
	$(PYTEST) -n $(DRILLS) tests/drills/test_drills.py || status=1; \
	exit $$status

# alone and in order: one guest with the Linux Bluetooth stack, which should not wait for other tests
.PHONY: test-bluez
test-bluez: $(DEV)
	@$(BIN)/python -m pytest tests/bluez -p no:xdist

.PHONY: check
check: $(DEV)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check -q .
	@status=0; \
	$(BIN)/mypy --no-error-summary $(PACKAGES) tests bench & \
	$(BIN)/mypy --no-error-summary --config-file mypy-badge.ini || status=1; \
	$(BIN)/python tests/compile_badge.py || status=1; \
	wait $$! || status=1; \
	exit $$status

.PHONY: bench
bench: $(DEV)
	@$(BIN)/python -m bench

.PHONY: bench-hub
bench-hub: $(DEV)
	@$(BIN)/python -m bench.hub

.PHONY: kill-test
kill-test: $(DEV)
	@$(BIN)/python tests/hub/kill_runs.py $(or $(RUNS),300) $(SEED)

.PHONY: size
size: $(DEV)
	@$(BIN)/python -m firmware.tools.size

.PHONY: card
card: $(DEV)
	@$(BIN)/python docs/wearer_card.py

.PHONY: soak
soak: $(DEV)
	@exec $(BIN)/tocsin-drill soak tests/drills --rounds $(or $(ROUNDS),10)

.PHONY: drawings
drawings: $(DEV)
	@$(BIN)/python docs/drawings.py

.PHONY: pictures
pictures: drawings
	@$(BIN)/python docs/pictures.py

.PHONY: vectors
vectors: $(DEV)
	@$(BIN)/python tests/protocol/make_vectors.py

.PHONY: fuzz
fuzz: $(DEV)
	@$(BIN)/python tests/protocol/fuzz_decoders.py . $(or $(SECONDS),60) $$$$
	@$(BIN)/micropython tests/protocol/fuzz_decoders.py $(CURDIR) $(or $(SECONDS),60) $$$$

.PHONY: hardware
hardware:
-include hardware/hardware.mk

.PHONY: clean
clean:
	@rm -rf $(VENV) build var tocsin.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
