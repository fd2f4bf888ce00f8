# Schematic, board, case and power model. Needs Debian's KiCad 9: sudo hardware/install-kicad
HARDWARE_READY := $(VENV)/.hardware

.PHONY: hardware hardware-accept hardware-docs
hardware: $(HARDWARE_READY)
	@$(BIN)/python hardware/build.py

hardware-accept: $(HARDWARE_READY)
	@$(BIN)/python hardware/build.py --accept

hardware-docs: $(HARDWARE_READY)
	@$(BIN)/python hardware/docs.py

$(HARDWARE_READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-input -c constraints.txt -e '.[hardware]'
	@touch $@

# where nothing may be skipped the tests of the hardware need these too
ifeq ($(TOCSIN_REQUIRE_ALL),1)
test: $(HARDWARE_READY)
endif
