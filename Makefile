# Everything a newcomer or CI needs. VENV and PYTHON can be given: make test VENV=/tmp/venv PYTHON=python3.13
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
export VBENCH_TEST_ASSETS ?=

# CPU=1 installs torch and torchvision without CUDA (about 200 MB instead of 5 GB) if that index can be reached.
CPU_INDEX = https://download.pytorch.org/whl/cpu
CPU_TORCH = $(if $(CPU),$(BIN)/python -m pip install --quiet --retries 1 --timeout 20 --index-url $(CPU_INDEX) torch torchvision \
	|| echo "$(CPU_INDEX) cannot be reached: installing the default torch",@:)

# The suite of the published example; make reports EXAMPLE=suites/demo.yaml takes another one.
EXAMPLE ?= reports/example.yaml

.PHONY: demo test slow slurm plants ray sinks check fix bench gpu newcomer schema catalog docs reports pictures clean

demo: $(VENV)/.run    # about two minutes after the install; vbench run quickstart is the longer form
	$(BIN)/vbench run suites/demo.yaml

test: $(VENV)/.test
	$(BIN)/python -m pytest

slow: $(VENV)/.test
	$(BIN)/python -m pytest -m "slow or browser"

slurm: $(VENV)/.test    # as root, after apt-get install slurmctld slurmd slurm-client munge
	$(BIN)/python -m pip install --quiet --editable ".[slurm]"
	$(BIN)/python -m pytest -n 0 -m slurm tests/runner/executors

ray: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --editable ".[ray]"
	$(BIN)/python -m pytest -n 0 -m ray tests/runner/executors

sinks: $(VENV)/.test    # trackers on this machine, without a network
	$(BIN)/python -m pip install --quiet --editable ".[wandb,trackio]"
	$(BIN)/python -m pytest -n 0 -m slow tests/runner/sinks

plants: $(VENV)/.test    # mistakes planted in evaluations, each diagnosed: tens of minutes
	$(BIN)/python -m pytest -n 0 -m long tests/train/test_diagnosing_plants.py

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

fix: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.test
	$(BIN)/python benchmarks/startup.py

gpu: $(VENV)/.run    # the first measurements of a GPU in eight minutes; a second call takes up what is missing
	$(BIN)/python -m benchmarks.gpu_run

newcomer:    # README and tutorial in empty environments, from a clone and from the wheel, with the times of each step
	$(PYTHON) benchmarks/newcomer.py

schema: $(VENV)/.run
	$(BIN)/python -c "from bench.suite import write_json_schema; write_json_schema('suites/suite.schema.json')"

catalog: $(VENV)/.run    # counts of the registered models, which come with vbench; after a change of models
	$(BIN)/python -m bench.catalog.write_shipped_models

docs: $(VENV)/.docs    # warnings are errors; open docs/_build/index.html
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build

reports: $(VENV)/.test    # one new run on a quiet machine, about seven minutes on two cores; then commit reports/ and the picture
	rm -rf results/published
	$(BIN)/vbench run $(EXAMPLE) --out results/published --trust
	rm -rf reports/records reports/site    # after the run, whose records would name a changed tree otherwise
	$(BIN)/vbench report results/published --out reports/site
	mkdir -p reports/records
	cp results/published/records.jsonl results/published/suite.json reports/records/
	$(BIN)/python docs/images/take_picture.py reports/site/index.html docs/images/report.png

pictures: $(VENV)/.test    # of the how-to pages, from two small trainings
	$(BIN)/python docs/images/take_how_to_pictures.py

clean:    # never results/: they may be days of GPU time
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml | $(VENV)/bin/python
	$(CPU_TORCH)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	$(CPU_TORCH)
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@

$(VENV)/.docs: pyproject.toml | $(VENV)/bin/python
	$(CPU_TORCH)
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(CPU_TORCH)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@
