# One-line targets. PYTHON names the interpreter (a virtual environment with torch in it).
PYTHON ?= python
CPP_FILES = $(shell git ls-files 'cmake/*.cpp' 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cu' 'csrc/*.cuh' 'tests/sim/*.h' 'tests/sim/*.cpp' \
	'tests/emulator/*.h' 'tests/emulator/*.cpp' 'tests/emulator/*.cu')

.PHONY: build wheel aarch64 test lint format sim sim-asan emulator emulator-gpu-tests rehearse predict instructions cpu-asan docs gates bench clean

build:  ## compile kdops/_C.abi3.so in place, incrementally
	PATH="$(dir $(PYTHON)):$$PATH" $(PYTHON) setup.py -q build_ext --inplace

wheel:  ## dist/kdops-*-py3-none-manylinux_2_28_*.whl, for every Python; auditwheel checks the tag
	KDOPS_GLIBC=2.28 $(PYTHON) -m pip wheel --no-deps --wheel-dir dist .
	PATH="$(dir $(PYTHON)):$$PATH" $(PYTHON) -m auditwheel repair --only-plat --plat manylinux_2_28_$(shell uname -m) \
		--exclude 'libtorch*' --exclude 'libc10*' --wheel-dir build/auditwheel dist/kdops-*-manylinux_2_28_*.whl

CROSS ?= aarch64-linux-gnu-g++
aarch64:  ## the library compiled for aarch64 by $(CROSS), against torch's headers and empty torch libraries
	@mkdir -p build/aarch64/torch/lib
	ln -sfn $$($(PYTHON) -c 'import torch; print(torch.__path__[0])')/include build/aarch64/torch/include
	for name in torch torch_cpu c10; do \
		$(CROSS) -shared -nostdlib -x c++ /dev/null -o build/aarch64/torch/lib/lib$$name.so || exit 1; done
	cmake -S . -B build/aarch64 -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=$(CROSS) \
		-DKDOPS_TORCH_DIR=$(CURDIR)/build/aarch64/torch -DKDOPS_CUDA=0 -DKDOPS_STRICT=ON
	cmake --build build/aarch64 --parallel $${MAX_JOBS:-2}

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
	$(EMULATED) tests/ops/*_gpu.py

predict:  ## counts and predicted time of the CUDA kernels, and the budgets on them
	$(PYTHON) -m benchmarks.predict --check

instructions:  ## of a hot call of every op, counted by callgrind, and the budgets on them
	$(PYTHON) -m benchmarks.instructions --check

rehearse:  ## every stage of benchmarks/gpu_day.sh, tiny, on the emulated device
	PYTHON=$(PYTHON) benchmarks/gpu_day.sh --rehearse --budget 3000 --out build/gpu-day-rehearsal

cpu-asan:  ## the CPU kernels under AddressSanitizer and UBSan: direct calls, values and gradients
	$(PYTHON) tests/sanitize.py cpu -q tests/package/test_direct_calls.py $(ARGS)
	$(PYTHON) tests/sanitize.py cpu -q tests/test_contract.py -k "value or hard or layout or empty" $(ARGS)

methods:  ## what docs/methods.md and README.md list of every method
	$(PYTHON) docs/write_methods.py

docs:  ## the documentation site, into build/docs; warnings and broken links are errors
	$(PYTHON) -m sphinx -qEW --keep-going -b html docs build/docs
	$(PYTHON) docs/check_site.py build/docs

gates:  ## all CUDA for sm_80 and sm_90, register spills are errors
	$(PYTHON) -m pytest tests/package/test_cuda_gate.py

bench:  ## the benchmarks, quick
	$(PYTHON) -m pytest benchmarks --benchmark-only --quick

clean:
	rm -rf build dist *.egg-info kdops/_C.abi3.so
