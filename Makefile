# Every entry works on a fresh clone; `make help` lists them.
SHELL := /bin/bash
VENV := .venv
PYTHON ?= python3
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
INSTALLED := $(VENV)/.installed
PIP := $(VENV)/bin/python -m pip install -qq --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install repro test lint format bench ui lock clean

help: ## list the entries
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## create .venv and install what requirements.lock names

$(INSTALLED): requirements.lock pyproject.toml
	@echo "installing into $(VENV): about two minutes, more while packages have to be downloaded"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --requirement requirements.lock
	@$(PIP) --no-deps --editable .
	@touch $@

repro: install ## reproduce every result: data, training, scores, pictures
	dvc pull --quiet $(wildcard *.dvc)
	dvc repro
	@python -m loupe.stages.show

test: install ## run the whole test suite
	dvc pull --quiet data.dvc
	OMP_WAIT_POLICY=PASSIVE python -m pytest --numprocesses 2 --dist loadfile --durations=40

lint: install ## check style, types and import directions
	ruff check .
	ruff format --check .
	mypy
	lint-imports

format: install ## rewrite the code in the house style
	ruff check --fix-only .
	ruff format .

bench: repro ## run every benchmark; each prints a table and writes JSON to benchmarks/results
	@for name in $$(loupe bench); do loupe bench "$$name" || exit 1; done

ui: install ## start the Prefect server, a worker, TensorBoard and the reports, until Ctrl-C
	dvc pull --quiet data.dvc
	@exec loupe flows up

lock: install ## write requirements.lock anew from pyproject.toml
	pip-compile --quiet --extra dev --strip-extras --no-emit-index-url --no-emit-find-links \
		--no-emit-trusted-host --allow-unsafe --resolver backtracking --output-file requirements.lock pyproject.toml
	sed -i "s|^\(torch==[0-9.]*\)+.*|\1|" requirements.lock  # any build of that version, not only the one at hand
	sed -i "/^loupe @ /,+1d" requirements.lock  # the project itself, by the path of this machine

clean: ## remove outputs and the environment; versioned data stays in the cache
	rm -rf $(VENV) index models bundle runs reports
