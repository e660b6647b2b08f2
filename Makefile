# One-line targets. PYTHON names the interpreter (a virtual environment with torch in it).
PYTHON ?= python
CPP_FILES = $(shell git ls-files 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cu' 'csrc/*.cuh' 'tests/sim/*.h' 'tests/sim/*.cpp' \
	'tests/emulator/*.h' 'tests/emulator/*.cpp' 'tests/emulator/*.cu')

.PHONY: build test lint format sim sim-asan emulator emulator-gpu-tests rehearse predict cpu-asan gates bench clean

build:  ## compile kdops/_C.abi3.so in place, incrementally
	PATH="$(dir $(PYTHON)):$$PATH" $(PYTHON) setup.py -q build_ext --inplace

test:  ## the whole test suite
	$(PYTHON) -m pytest

lint:  ## ruff, mypy strict, clang-format
	$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	@test -z "$(CPP_FILES)" || PATH="$(dir $(PYTHON)):$$PATH" clang-format --dry-run --Werror $(CPP_FILES)

format:  ## rewrite all files in the house format
	$(PYTHON) -m ruff check --fix . && $(PYTHON) -m ruff format .
	@test -z "$(CPP_FILES)" || PATH="$(dir $(PYTHON)):$$PATH" clang-format -i $(CPP_FILES)

sim:  ## every CUDA kernel on the CPU simulator
	$(PYTHON) -m pytest tests/sim

sim-asan:  ## the same under AddressSanitizer and UBSan
	$(PYTHON) tests/sanitize.py sim -q $(ARGS)

EMULATED = $(PYTHON) -m pytest -p tests.emulator.plugin $(EMULATOR_ARGS) -q
emulator:  ## the compiled PTX of every CUDA kernel, through torch, on an emulated device
	$(PYTHON) -m pytest $(EMULATOR_ARGS) -q tests/emulator
	$(EMULATED) tests/emulator/test_device.py tests/test_contract.py --device cuda -k "not compile"

emulator-gpu-tests:  ## the tests for a GPU on it; the large shapes take a quarter of an hour
	$(EMULATED) tests/ops/test_svd_gpu.py tests/ops/test_gram_loss_gpu.py

predict:  ## counts and predicted time of the CUDA kernels, and the budgets on them
	$(PYTHON) -m benchmarks.predict --check

rehearse:  ## every stage of benchmarks/gpu_day.sh, tiny, on the emulated device
	PYTHON=$(PYTHON) benchmarks/gpu_day.sh --rehearse --budget 3000 --out build/gpu-day-rehearsal

cpu-asan:  ## the CPU kernels under AddressSanitizer and UBSan: direct calls, values and gradients
	$(PYTHON) tests/sanitize.py cpu -q tests/test_direct_calls.py $(ARGS)
	$(PYTHON) tests/sanitize.py cpu -q tests/test_contract.py -k "value or hard or layout or empty" $(ARGS)

gates:  ## all CUDA for sm_80 and sm_90, register spills are errors
	$(PYTHON) -m pytest tests/test_cuda_gate.py

bench:  ## the benchmarks, quick
	$(PYTHON) -m pytest benchmarks --benchmark-only --quick

clean:
	rm -rf build dist *.egg-info kdops/_C.abi3.so
