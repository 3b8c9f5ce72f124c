# Concept Lab. `make run` and `make test` do all their own set-up; `make help` lists the rest.
PYTHON ?= python3
# Leave empty, or set to PyTorch's CPU index to spare a machine without GPU the CUDA libraries.
TORCH_INDEX ?=
# The checksums that every downloaded file must have (all but torch's). Empty (`make run HASHES=`) installs by version alone: for a
# mirror that serves other builds than the registry that the checksums come from.
HASHES ?= .ci/hashes.txt
# Some notebooks or benchmarks only: `make run ONLY=01`, `make bench ONLY=projection`.
ONLY ?=
# `make saes SEED=1`: dictionaries of another training seed, for the spread between seeds.
SEED ?= 0

VENV := .venv
PY := $(VENV)/bin/python
ANY_PYTHON = $(if $(wildcard $(VENV)/.made),$(PY),$(PYTHON))
PIP_FLAGS := --quiet --disable-pip-version-check
PIP := $(PY) -m pip install $(PIP_FLAGS) -c .ci/constraints.txt
# Checksums first: wheels, of which nothing runs, then what there is as source alone, built without fetching more. What follows
# finds its dependencies there already.
HASHED := --require-hashes --no-deps --only-binary :all:
SOURCE := --require-hashes --no-deps --no-build-isolation
COURSE := $(PY) -m conceptlab.course
# sae-lens needs an older transformer-lens than the course: an environment of its own.
CROSS := .venv-crosscheck

.DEFAULT_GOAL := help
.PHONY: help python run site test unit notebooks lab only bench gpu-check saes crosscheck student instructor commit lint clean fetch

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1@\2/p' $(MAKEFILE_LIST) | awk -F@ '{printf "%-18s%s\n", $$1, $$2}'

# The site is there to read before the models are fetched, which takes minutes the first time.
run: only $(VENV)/.installed ## execute every notebook and write the site to build/ (ONLY=1, ONLY=pisces or ONLY=01,02 for some)
	@$(COURSE) site
	@$(PY) -m conceptlab.cli fetch
	@CONCEPTLAB_PROFILE="$${CONCEPTLAB_PROFILE:-quick}" $(COURSE) run $(if $(ONLY),--only $(ONLY))

site: $(VENV)/.installed ## the site alone, from the outputs that came with the course, in build/site/
	@$(COURSE) site

# A wrong ONLY is refused before anything is made.
only: python
	@$(if $(ONLY),$(ANY_PYTHON) lib/conceptlab/course/selection.py $(ONLY))

test: unit notebooks ## unit tests, then every notebook

# Two processes with one thread each: tiny models gain nothing from threads, and a model is loaded once a process.
unit: fetch ## unit tests alone
	@OMP_NUM_THREADS=1 $(PY) -m pytest tests -n 2 --dist loadfile -p no:cacheprovider -q -rs --durations=15

# Two notebooks at a time with one thread each, as for the unit tests. A test run is nobody's progress, as `make run` is not. No cell
# dies of a time limit on a busy machine: an hour is a hundred times what the longest needs alone.
notebooks: fetch ## every notebook, cell by cell, two at a time
	@OMP_NUM_THREADS=1 CONCEPTLAB_PROGRESS= CONCEPTLAB_PROFILE="$${CONCEPTLAB_PROFILE:-quick}" \
		$(PY) -m pytest notebooks -n 2 --dist loadfile \
		--nbval-lax --nbval-current-env --nbval-sanitize-with tests/notebooks/sanitize.cfg \
		--nbval-cell-timeout=3600 -p no:cacheprovider -q -rs --durations=10

lab: fetch ## open JupyterLab on copies of the notebooks, in build/lab/
	@$(COURSE) lab

bench: fetch ## benchmarks, also to build/bench.csv (ONLY=projection for some)
	@$(PY) tests/bench $(ONLY)

# No `fetch`: it runs without a network, and takes the bundled models along where they lie in the cache already.
gpu-check: $(VENV)/.installed ## on a machine with a GPU: does every room run right there? Figures to build/gpu.json
	@$(PY) -m conceptlab.cli gpu-check

saes: fetch ## build the dictionaries that data/saes lacks, or with SEED=1 others into the cache (hours on a CPU)
	@for model in smollm2-135m gemma3-270m; do \
		$(PY) -m conceptlab.cli train-sae --shipped --model $$model --seed $(SEED) || exit 1; done

crosscheck: fetch $(CROSS)/.installed ## optional: do sae-lens and Concept Lab read each other's files?
	@rm -rf build/crosscheck
	@$(PY) tests/crosscheck/saelens.py ours build/crosscheck
	@$(CROSS)/bin/python tests/crosscheck/saelens.py theirs build/crosscheck
	@$(PY) tests/crosscheck/saelens.py ours build/crosscheck

student: only $(VENV)/.installed ## copies of the notebooks without solutions, in build/student/
	@$(COURSE) student $(if $(ONLY),--only $(ONLY))

instructor: $(VENV)/.installed ## key, rubrics, schedules and nbgrader's assignments for a teacher, in build/instructor/
	@$(COURSE) instructor

commit: only fetch ## for authors: execute and write the outputs back into notebooks/
	@CONCEPTLAB_PROFILE="$${CONCEPTLAB_PROFILE:-quick}" $(COURSE) commit $(if $(ONLY),--only $(ONLY))

lint: $(VENV)/.installed ## ruff over code and notebooks (undefined names too), mypy over the library
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check lib tests
	@$(PY) -m mypy

clean: ## remove build/ and caches (keeps .venv and the models)
	@rm -rf build .pytest_cache .ruff_cache
	@find lib tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Set-up. The stamps are written only after their step is done, so an interrupted one is repeated.
fetch: $(VENV)/.installed
	@$(PY) -m conceptlab.cli fetch

$(VENV)/.installed: pyproject.toml .ci/constraints.txt .ci/hashes.txt .ci/hashes-source.txt | $(VENV)/.made
	@echo "Installing the dependencies into $(VENV) (several minutes the first time) ..."
	@$(if $(HASHES),$(PY) -m pip install $(PIP_FLAGS) $(HASHED) -r $(HASHES))
	@$(if $(HASHES),$(PY) -m pip install $(PIP_FLAGS) $(SOURCE) -r $(HASHES:.txt=-source.txt))
	@$(PIP) $(if $(TORCH_INDEX),--no-deps --index-url "$(TORCH_INDEX)") torch
	@$(PIP) $(if $(HASHES),--no-build-isolation) -e '.[all]'
	@touch $@

$(CROSS)/.installed: tests/crosscheck/requirements.txt | $(VENV)/.made
	@echo "Installing sae-lens into $(CROSS) (several minutes) ..."
	@$(PYTHON) -m venv $(CROSS)
	@echo '*' > $(CROSS)/.gitignore
	@$(CROSS)/bin/python -m pip install $(PIP_FLAGS) --require-hashes --no-deps -r tests/crosscheck/requirements.txt
	@$(CROSS)/bin/python -m pip install $(PIP_FLAGS) $(if $(TORCH_INDEX),--no-deps --index-url "$(TORCH_INDEX)") \
		"$$(grep '^torch==' .ci/constraints.txt)"
	@touch $@

python:
	@test -e $(VENV)/.made || command -v $(PYTHON) >/dev/null || { \
		echo "Concept Lab needs Python 3.11 or newer, and there is no '$(PYTHON)' here." >&2; exit 1; }
	@test -e $(VENV)/.made || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Concept Lab needs Python 3.11 or newer, and '$(PYTHON)' is older: call make with PYTHON=<a newer python3>." >&2; \
		exit 1; }

$(VENV)/.made: | python
	@$(PYTHON) -m venv $(VENV)
	@touch $@
