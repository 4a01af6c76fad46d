# The commands of the README. `make demo` and `make test` need python 3.11 or newer and make; a C
# compiler makes it fast. Everything else comes from PyPI into $(VENV).

PYTHON ?= python3
VENV ?= .venv
PIP_FLAGS ?=
PYTEST_FLAGS ?=
DEMO_DIR ?= demo-out
BUILD ?= build

BIN := $(VENV)/bin
RUN_EXTRAS := export,bench,report
DEV_EXTRAS := dev,$(RUN_EXTRAS)
# An editable install sees changed Python files by itself, but not these.
BUILT_FROM := pyproject.toml $(wildcard CMakeLists.txt) \
	$(shell find bitfold/kernels/csrc -type f 2>/dev/null)
C_FILES = $(shell find bitfold/kernels/csrc tests/replay -name '*.[ch]' 2>/dev/null)

# The tests that run every row of the kernel table; they load neither torch nor ONNX Runtime.
KERNEL_TESTS = $(wildcard tests/*/test_*kernel*.py)
BUILD_KERNELS = $(BIN)/cmake -S . -DCMAKE_BUILD_TYPE=Release --log-level=WARNING

# Those of them that can run a table of another machine (tests/property/replayed_rows.py).
REPLAYED_TESTS = $(shell grep -l replayed_rows $(KERNEL_TESTS))
CROSS ?= aarch64-linux-gnu
QEMU ?= qemu-aarch64 -L /usr/$(CROSS)

FUZZ_SECONDS ?= 3600
FUZZ_DIR ?= $(BUILD)/fuzz

.PHONY: help demo test bench lint docs sanitize emulate clang neon fuzz clean install install-dev
.DEFAULT_GOAL := help

help:
	@echo "make demo      checkpoint -> integers -> ONNX -> checks -> timing -> FPGA estimate, into $(DEMO_DIR)/"
	@echo "make test      every test"
	@echo "make bench     the developer's benchmarks (by hand, on a quiet machine)"
	@echo "make lint      formatting, lint, types, import rules, C formatting"
	@echo "make docs      run the examples in docs/ and README.md"
	@echo "make sanitize  the kernels' tests on an address- and undefined-behaviour-sanitized library"
	@echo "make emulate   the kernels' tests on AVX-512 rows emulated with SIMDe (needs libsimde-dev)"
	@echo "make clang     the kernels' tests on a library built with clang"
	@echo "make neon      the kernels' tests on aarch64 rows under qemu-user (needs $(CROSS)-gcc and qemu-user)"
	@echo "make fuzz      atheris on the loaders of ONNX files and checkpoints, FUZZ_SECONDS=$(FUZZ_SECONDS) each (by hand)"
	@echo "make clean     remove $(VENV), $(BUILD) and $(DEMO_DIR)"
	@echo "variables: PYTHON=$(PYTHON) VENV=$(VENV) PIP_FLAGS='$(PIP_FLAGS)' PYTEST_FLAGS='$(PYTEST_FLAGS)'"

# ------------------------------------------------------------------------------- environment

$(VENV)/.created:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "error: '$(PYTHON)' was not found. Install Python 3.11 or newer, or name it: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is `$(PYTHON) -V`; bitfold needs 3.11 or newer. Name one: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "error: $(PYTHON) cannot make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@touch $@

$(VENV)/.installed: $(VENV)/.created $(BUILT_FROM)
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) -e '.[$(RUN_EXTRAS)]'
	@touch $@

# Holds everything that .installed holds, so it stands in for it.
$(VENV)/.installed-dev: $(VENV)/.created $(BUILT_FROM)
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) -e '.[$(DEV_EXTRAS)]'
	@touch $(VENV)/.installed $@

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

# ---------------------------------------------------------------------------------- commands

demo: $(VENV)/.installed
	$(BIN)/bitfold demo -o $(DEMO_DIR)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

bench: $(VENV)/.installed-dev
	$(BIN)/python -m pytest tests/bench $(PYTEST_FLAGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(if $(C_FILES),$(BIN)/clang-format --dry-run -Werror $(C_FILES))

docs: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --doctest-glob='*.md' docs README.md $(PYTEST_FLAGS)

# The interpreter is not built with the sanitizer, so its run-time library has to come first; what
# the interpreter itself leaves allocated at exit is not ours to report.
sanitize: $(VENV)/.installed-dev
	$(BUILD_KERNELS) -B $(BUILD)/sanitize -DCMAKE_C_COMPILER=gcc -DBITFOLD_SANITIZE=ON
	$(BIN)/cmake --build $(BUILD)/sanitize
	LD_PRELOAD=`gcc -print-file-name=libasan.so` ASAN_OPTIONS=detect_leaks=0 \
	BITFOLD_KERNEL_LIBRARY=$(abspath $(BUILD))/sanitize/libbitfold_kernels.so \
	$(BIN)/python -m pytest $(KERNEL_TESTS) $(PYTEST_FLAGS)

emulate: $(VENV)/.installed-dev
	$(BUILD_KERNELS) -B $(BUILD)/emulate -DBITFOLD_EMULATE_AVX512=ON
	$(BIN)/cmake --build $(BUILD)/emulate
	BITFOLD_KERNEL_LIBRARY=$(abspath $(BUILD))/emulate/libbitfold_kernels.so \
	$(BIN)/python -m pytest $(KERNEL_TESTS) $(PYTEST_FLAGS)

clang: $(VENV)/.installed-dev
	$(BUILD_KERNELS) -B $(BUILD)/clang -DCMAKE_C_COMPILER=clang
	$(BIN)/cmake --build $(BUILD)/clang
	BITFOLD_KERNEL_LIBRARY=$(abspath $(BUILD))/clang/libbitfold_kernels.so \
	$(BIN)/python -m pytest $(KERNEL_TESTS) $(PYTEST_FLAGS)

neon: $(VENV)/.installed-dev
	$(BUILD_KERNELS) -B $(BUILD)/neon -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
	  -DCMAKE_C_COMPILER=$(CROSS)-gcc -DBITFOLD_REPLAY=ON
	$(BIN)/cmake --build $(BUILD)/neon
	BITFOLD_KERNEL_REPLAY="$(QEMU) $(abspath $(BUILD))/neon/kernel_replay" \
	$(BIN)/python -m pytest $(REPLAYED_TESTS) $(PYTEST_FLAGS)

fuzz: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) -e '.[fuzz]'
	for loader in onnx checkpoint published; do \
	  $(BIN)/python -m tests.fuzz.fuzz_loaders $$loader --corpus $(FUZZ_DIR)/$$loader \
	    -artifact_prefix=$(FUZZ_DIR)/ -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

clean:
	rm -rf $(VENV) $(BUILD) $(DEMO_DIR)
