# A fresh machine needs only Python 3.11 or newer (with venv) and make.
#
#     make demo                       install, train on drawn leaves, test the result
#     make check PYTEST_WORKERS=8     all checks on eight cores
#     make install PYTHON=python3.12  with another Python
#     make wheelhouse TORCH_INDEX=…   wheels for a cluster without internet: docs/slurm.md

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
# One more than the cores of a small machine: the tests of Slurm mostly wait for it.
PYTEST_WORKERS ?= 3
FUZZ ?= 100

# The wheels for a cluster: folder, extras, and the index of another build of torch (empty: that of PyPI) with its versions.
WHEELHOUSE ?= wheelhouse
WHEEL_EXTRAS ?= heif
TORCH_INDEX ?=
TORCH_VERSIONS ?= >=2.10,<2.15

# Even where the environment forbids it: each process would else compile bldml, and pytest all tests, again.
export PYTHONDONTWRITEBYTECODE :=

BIN := $(VENV)/bin
STAMP := $(VENV)/.bldml-installed
ONLY_BLDML := $(VENV)/.bldml-only
# Defined once, so that all commands of one `make demo` use the same run.
RUN := demo_$(shell date +%Y%m%d-%H%M%S)

# All targets share one environment and one set of caches, so `make -j` runs them one after the other.
.NOTPARALLEL:
.PHONY: help install demo test check quick coverage lint test-lowest format fuzz docs screens wheelhouse clean
.DEFAULT_GOAL := help

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

install: $(STAMP) ## Install bldml and its tools into .venv, again only if versions changed

demo: $(ONLY_BLDML) data/demo ## Train a small classifier on drawn leaves and test it
	$(BIN)/python -m bldml fit --config configs/demo.yaml --run_name $(RUN)
	$(BIN)/python -m bldml test --ckpt_path lightning_logs/$(RUN)/checkpoints/best.ckpt
	@echo
	@echo "Open in a browser:  lightning_logs/$(RUN)/report.html"
	@echo "Training curves:    $(BIN)/tensorboard --logdir lightning_logs"

test: install check ## Install, then check: the command of CI

check: lint ## Lint, format, types and all tests
	$(BIN)/pytest -n $(PYTEST_WORKERS) --dist loadfile --durations=25

# None of these tests waits for anything, and each worker imports and collects all.
quick: PYTEST_WORKERS = 2
quick: lint ## Lint, format, types and the fast tests: before each commit
	$(BIN)/pytest -n $(PYTEST_WORKERS) --dist loadfile --durations=10 -m "not slow and not browser"

coverage: $(STAMP) ## All tests with line coverage; fails below the floor in pyproject.toml
	$(BIN)/pytest -n $(PYTEST_WORKERS) --dist loadfile --cov=bldml --cov-report=term:skip-covered

lint: $(STAMP) ## Lint, format, spelling and types
	$(BIN)/ruff check
	$(BIN)/ruff check --preview --select PLW1514 bldml  # text files name their encoding, which Windows would choose
	$(BIN)/ruff format --check
	$(BIN)/codespell bldml tests benchmarks configs docs experiments scripts Makefile pyproject.toml *.md
	$(BIN)/mypy -n 2 bldml tests $(wildcard benchmarks/*.py)

test-lowest: ## Tests with the lowest versions that pyproject.toml allows, in .venv-lowest (several GB)
	$(MAKE) install VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt
	.venv-lowest/bin/pytest -n $(PYTEST_WORKERS) --dist loadfile

format: $(STAMP) ## Format the code and fix what ruff can fix
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

fuzz: $(STAMP) ## Many files from strangers, by chance: FUZZ times as many as in the checks (an hour and more)
	BLDML_FUZZ=$(FUZZ) $(BIN)/pytest tests/fuzz -p no:cacheprovider

docs: $(STAMP) ## Build the documentation into site/; a broken link is an error
	$(BIN)/python -m pip install -q -e '.[docs]' -c $(CONSTRAINTS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir site

screens: $(STAMP) ## Pictures of all pages in screens/, of drawn leaves; needs Chromium
	$(BIN)/python -m tests.browser.screens screens

# Wheels fit only the system and the Python that they were made with. The build of torch is chosen first, then pinned: by
# itself pip would take the newest torch, which is that of PyPI.
wheelhouse: $(BIN)/pip ## Collect bldml and all that it needs in wheelhouse/, to install without internet
	@mkdir -p $(WHEELHOUSE)
	rm -rf $(WHEELHOUSE)/*.whl build  # modules left in build/ would be packed again
ifeq ($(TORCH_INDEX),)
	cp $(CONSTRAINTS) $(WHEELHOUSE)/constraints.txt
else
	$(BIN)/python -m pip download -q --only-binary :all: -d $(WHEELHOUSE) --index-url $(TORCH_INDEX) "torch$(TORCH_VERSIONS)" torchvision
	sed -E '/^torch(vision)?==/d' $(CONSTRAINTS) >$(WHEELHOUSE)/constraints.txt
	ls $(WHEELHOUSE)/torch*.whl | sed -E 's|.*/(torch[a-z]*)-([^-]+)-.*|\1==\2|; s/%2B/+/' >>$(WHEELHOUSE)/constraints.txt
endif
	$(BIN)/python -m pip wheel -q -w $(WHEELHOUSE) --find-links $(WHEELHOUSE) -c $(WHEELHOUSE)/constraints.txt ".[$(WHEEL_EXTRAS)]"
	cd $(WHEELHOUSE) && sha256sum *.whl constraints.txt >SHA256SUMS
	@echo "Copy $(WHEELHOUSE) to the cluster. There, with $$($(BIN)/python --version):"
	@echo "  python3 -m venv env && env/bin/pip install --no-index --find-links $(WHEELHOUSE) -c $(WHEELHOUSE)/constraints.txt 'bldml[$(WHEEL_EXTRAS)]'"

clean: ## Remove caches and build output; runs, data and .venv stay
	rm -rf build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find $(wildcard bldml tests benchmarks) -type d -name __pycache__ -prune -exec rm -rf {} +

data/demo: | $(ONLY_BLDML)
	$(BIN)/python -m bldml demo data/demo

$(STAMP): pyproject.toml $(CONSTRAINTS) | $(BIN)/pip
	$(BIN)/python -m pip install -e '.[dev,heif,onnx,completion,timm,search]' -c $(CONSTRAINTS)
	@touch $@ $(ONLY_BLDML)

# Without the tools of developers.
$(ONLY_BLDML): pyproject.toml $(CONSTRAINTS) | $(BIN)/pip
	$(BIN)/python -m pip install -e . -c $(CONSTRAINTS)
	@touch $@

# An existing environment is used as it is, with any Python.
$(BIN)/pip:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found. Install Python 3.11 or newer, or name one: make install PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "bldml needs Python 3.11 or newer; $(PYTHON) is %d.%d. Name another one: make install PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
