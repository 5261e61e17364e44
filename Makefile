# Two commands do everything: `make demo` and `make test`. The rest is for people who work on Keylatch.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
DATA ?=
SECONDS ?= 60

AUDITED := keylatch-demo

# Tests run in so many processes, a file at a time; each computes on one core and takes up to 4 GiB.
JOBS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

.PHONY: demo demo-domains audit test test-all lint format bench bench-gpu fuzz clean

# The environments are stamps: made again only when the project's requirements change. The TPM binding is compiled, and
# joins where its headers are (apt-get install libtss2-dev pkg-config build-essential); its tests skip without it.
$(VENV)/.demo: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt -e '.[demo]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt -e '.[dev]'
	if pkg-config --exists tss2-esys; then $(PIP) install -c constraints.txt -e '.[tpm]'; fi
	touch $@ $(VENV)/.demo

demo: $(VENV)/.demo
	$(BIN)/keylatch demo

# DATA=folder of the data pack: MNIST, USPS and MNIST-M in place of domains made of scikit-learn's digits.
demo-domains: $(VENV)/.demo
	$(BIN)/keylatch demo-domains $(if $(DATA),--data $(DATA))

# Attacks the demo's own model; stopped, it goes on where it was.
audit: $(VENV)/.demo
	test -f $(AUDITED)/audit_images.npy || $(BIN)/keylatch demo
	$(BIN)/keylatch audit $(AUDITED)/digits.latch --minutes 5 \
	    --images $(AUDITED)/audit_images.npy --labels $(AUDITED)/audit_labels.npy \
	    --test-images $(AUDITED)/audit_test_images.npy --test-labels $(AUDITED)/audit_test_labels.npy \
	    --secret $(AUDITED)/digits.secret --issuer $(AUDITED)/issuer.key --original $(AUDITED)/plain/model.onnx

test: $(VENV)/.dev
	$(PYTEST)

test-all: $(VENV)/.dev
	KEYLATCH_DATA=$(DATA) $(PYTEST) -m 'not gpu'

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Writes benchmarks/results/*.json, performance.md and plots. DATA=folder of the data pack adds networks with real weights.
BENCHED := build/benchmarks
SPEED := --artifacts $(BENCHED)

bench: $(VENV)/.dev
	rm -rf $(BENCHED)
	$(BIN)/python benchmarks/lock_time.py
	$(BIN)/python benchmarks/overhead.py $(SPEED)
	$(BIN)/python benchmarks/end_to_end.py $(SPEED)
	$(BIN)/python benchmarks/throughput.py $(SPEED)
	$(BIN)/python benchmarks/gate_only.py
	$(BIN)/python benchmarks/block_overhead.py
	$(BIN)/python benchmarks/open_time.py $(SPEED)
	$(BIN)/python benchmarks/report.py
	$(BIN)/python benchmarks/license_time.py
	$(BIN)/python benchmarks/issue_rate.py
	$(BIN)/python benchmarks/code_leak.py
	$(BIN)/python benchmarks/dense_keys.py
	$(if $(DATA),$(BIN)/python benchmarks/lock_quality.py --data $(DATA))
	$(if $(DATA),$(BIN)/python benchmarks/bfloat16.py --data $(DATA) --images 300)
	$(if $(DATA),$(BIN)/python benchmarks/block_training.py --data $(DATA))
	$(if $(DATA),$(BIN)/python benchmarks/block_absorbed.py --data $(DATA))
	$(if $(DATA),$(BIN)/python benchmarks/domains.py --data $(DATA) --work $(BENCHED)/domains --attacks)

# Needs an NVIDIA GPU, and onnxruntime-gpu in place of onnxruntime: pip install '.[gpu,export,report]' transformers.
# PYTHON_GPU: the Python that has them. Card and driver are recorded.
PYTHON_GPU ?= $(BIN)/python
bench-gpu:
	rm -rf $(BENCHED)
	$(PYTHON_GPU) benchmarks/overhead.py --provider cuda --seconds 3 $(SPEED)
	$(PYTHON_GPU) benchmarks/end_to_end.py --provider cuda --seconds 5 $(SPEED)
	$(PYTHON_GPU) benchmarks/throughput.py --provider cuda --seconds 5 $(SPEED)
	$(PYTHON_GPU) benchmarks/report.py

$(VENV)/.fuzz: $(VENV)/.dev
	$(PIP) install -c constraints.txt -e '.[fuzz]'
	touch $@

# Every parser under Atheris for so many seconds, as many at a time as there are cores; exits 1 on a finding.
fuzz: $(VENV)/.fuzz
	$(BIN)/python tests/fuzz/run.py --seconds $(SECONDS)

clean:
	rm -rf $(VENV) build dist keylatch-demo keylatch-demo-domains .pytest_cache .mypy_cache .ruff_cache .hypothesis
