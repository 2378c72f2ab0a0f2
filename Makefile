# Every entry point of the repository. `make` alone prints them.

VENV ?= .venv
PYTHON ?= python3
SET ?=
ARGS ?=
TRIP ?=
EXTRAS ?=
REMOTE ?=
TAKE ?=
FROM ?=
TO ?=
INPUT ?=
OUTPUT ?=
MONTH ?=
export SET ARGS TRIP EXTRAS REMOTE TAKE FROM TO INPUT OUTPUT MONTH

RUN := $(VENV)/bin/python src/commands
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup train ingest featurize search evaluate explain course push pull refresh register rollback score serve monitor deploy backfill ui verify test test-faults lint audit bench lock clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## make the environment (.venv); others do it when needed; EXTRAS=dask adds its packages (gs, s3, ssh, audit, webtest)

$(READY): $(wildcard requirements*.txt) src/commands/setup.py $(if $(EXTRAS),always)
	@$(PYTHON) src/commands/setup.py $(VENV)

always:

train: $(READY) ## the whole pipeline, to an evaluated model; SET="key=value …" for one run of other settings
	@$(RUN) train

ingest: $(READY) ## fetch and clean the months, and print the ledger of what was set aside
	@$(RUN) ingest

featurize: $(READY) ## the features, and what they need
	@$(RUN) featurize

search: $(READY) ## the search for the best parameters, and what it needs
	@$(RUN) search

evaluate: $(READY) ## the model's errors beside the baselines', and what they need
	@$(RUN) evaluate

explain: $(READY) ## why the model says what it says; TRIP='{"pickup": …}' explains one trip
	@$(RUN) explain

course: $(READY) ## reproduce the course's own model and its RMSE (one to three minutes)
	@$(VENV)/bin/python benchmarks/course.py

push: $(READY) ## send the data and models that dvc.lock names to DVC's remote; REMOTE=name chooses one
	@$(RUN) push

pull: $(READY) ## bring them from there, and compute nothing; REMOTE=name chooses one
	@$(RUN) pull

refresh: $(READY) ## ask whether months were republished, and show what changed; TAKE=2024-01 or all takes it
	@$(RUN) refresh

register: $(READY) ## judge the evaluated model, and make it the registry's champion if it is better
	@$(RUN) register

rollback: $(READY) ## make the champion before the present one champion again
	@$(RUN) rollback

score: $(READY) ## predict the trips of a file or folder; INPUT= and OUTPUT= are paths or URLs, Parquet or CSV
	@$(RUN) score

serve: $(READY) ## answer over HTTP how long a trip will take, until Ctrl-C (docs/serving.md)
	@$(RUN) serve

monitor: $(READY) ## how far a month has drifted from those the champion learned from; MONTH=2024-05
	@$(RUN) monitor

deploy: $(READY) ## the monthly run on its schedule: a Prefect server, or yours, and a worker, until Ctrl-C
	@$(RUN) deploy

backfill: $(READY) ## the monthly runs of past months, in order; FROM=2021-03 TO=2021-08
	@$(RUN) backfill

ui: $(READY) ## Prefect's and MLflow's pages for what has run, until Ctrl-C
	@$(RUN) ui

verify: $(READY) ## rerun the committed pipeline elsewhere and compare every byte; SET="train.nthread=1"
	@$(VENV)/bin/python src/dvc_verify --set "$$SET" $(ARGS)

test: $(READY) ## the tests; ARGS="-k search" to choose some
	@$(VENV)/bin/python -m pytest $(ARGS)

test-faults: $(READY) ## every fault that is known to happen, into docs/reliability.md (up to an hour)
	@FAULTS=all $(VENV)/bin/python -m pytest tests/faults $(ARGS)

lint: $(READY) ## ruff and mypy
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy

audit: $(READY) ## the locks, the environment and its files against each other, and known vulnerabilities
	@$(RUN) audit

bench: $(READY) ## measure what the README claims, as ratios; ARGS=course runs one
	@$(VENV)/bin/python benchmarks $(ARGS)

lock: $(READY) ## resolve requirements*.in again into requirements*.txt; ARGS=--upgrade takes the newest
	@$(RUN) lock

clean: ## remove the environment and all that was computed, MLflow's runs and registry too; commits stay
	@rm -rf $(VENV) .venv-monitor .cache .prefect .mlflow .dvc/cache .dvc/tmp data/* models/* reports
