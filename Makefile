# `make demo` and `make test` need Python 3.10+ and make; they say what else they install.
# ARGS passes options on: make demo ARGS="--load faulty", make test ARGS="tests/demo -k ports".

.DEFAULT_GOAL := help
BIN := .venv/bin
# Most tests wait most of the time, so there are more of them at once than processors.
JOBS ?= 8
# Hundreds of processes are started: each would compile every module again.
export PYTHONDONTWRITEBYTECODE :=
PYTEST := $(BIN)/pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

demo: .venv/.installed-demo ## the whole stack on this machine, with a workload, until ^C
	@.ci/servers demo
	@$(BIN)/celerymeter demo $(ARGS)

test: .venv/.installed-dev ## all tests that can run here
	@.ci/servers test
	@$(PYTEST) -m "not slow" $(ARGS)

test-slow: .venv/.installed-dev ## the tests that take minutes
	@.ci/servers test
	@$(PYTEST) -m slow --timeout 1800 $(ARGS)

compose-test: .venv/.installed-dev ## docker-compose.yml in containers of a local Podman (root; 15 minutes)
	@$(BIN)/python -m tests.deploy.engine
	@.ci/newer-servers .cache/newer
	@$(BIN)/pytest -q -n 0 -m slow --timeout 1800 tests/deploy/test_compose_up.py $(ARGS)

lint: .venv/.installed-dev ## format, lint and the direction of imports
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports --no-logo

types: .venv/.installed-dev ## mypy --strict
	@$(BIN)/mypy

check: lint types test ## everything that must hold before a change is merged

bench: .venv/.installed-dev ## events, bursts, memory, pages and a long report, into tools/bench/RESULTS.md
	@.ci/servers test
	@$(BIN)/python -m tools.bench.bench $(ARGS)
	@$(BIN)/python -m tools.docs.tables

soak: .venv/.installed-dev ## half an hour under load and faults (ARGS="--minutes 3" for less)
	@.ci/servers test
	@$(BIN)/python -m tools.soak.soak $(ARGS)

flood: .venv/.installed-dev ## a minute of 10 MB/s of hostile events to exporter and control, on Redis, then on RabbitMQ
	@.ci/servers test
	@$(BIN)/python -m tools.hostile $(ARGS)

fuzz: .venv/.installed-dev ## ten minutes of fuzzing for each parser, after `pip install atheris` (ARGS="events --minutes 1" for less)
	@$(BIN)/python -m tools.fuzz $(ARGS)

celery-workload: .venv/.installed-dev ## Celery's own integration tests as workload: every count is compared (ARGS=--versions for all releases)
	@.ci/servers test
	@$(BIN)/python -m tools.celery_workload $(ARGS)

dashboards: .venv/.installed-dev ## write grafana/dashboards
	@PYTHONPATH=grafana $(BIN)/python -m celerymeter_dashboards

generate: .venv/.installed-dev ## write all generated files
	@$(BIN)/python -m tests.exposition.golden
	@$(BIN)/python alerts/generate.py
	@$(BIN)/python deploy/compose/generate.py
	@$(BIN)/python -m tools.docs.openapi # before the tables, which list its paths
	@$(BIN)/python -m tools.docs.tables
	@$(MAKE) --no-print-directory dashboards # last, since it needs Python 3.11

pictures: .venv/.installed-dev ## take the README's pictures of a demo; those of the dashboards are taken by hand
	@.ci/servers test
	@$(BIN)/python -m tools.docs.pictures $(ARGS)

secrets: ## passwords and keys for docker compose up
	@deploy/compose/make-secrets

lock: .venv/.installed-dev ## pin what tests, demo and image install (ARGS=--upgrade for the newest of everything)
	@.ci/lock $(ARGS)

newest: .venv/.installed-dev ## run the tests with the newest of everything, in a folder of its own
	@.ci/servers test
	@.ci/newest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

audit: ## known vulnerabilities of what the image installs (asks the Python Package Index)
	@.ci/audit

newer: ## Prometheus 3 and its tools in .cache/newer, for the tests that compare releases
	@.ci/newer-servers .cache/newer

newer-rabbitmq: ## RabbitMQ 4.3 in .cache/newer-rabbitmq, run by CELERYMETER_RABBITMQ=$PWD/.cache/newer-rabbitmq/rabbitmq-server (root)
	@.ci/newer-rabbitmq .cache/newer-rabbitmq

celeries: .venv/.installed-dev ## Celery 5.4 and 5.6 in .cache, for the tests that run other versions of it
	@.ci/celery-versions 5.4 5.6

.venv/.installed-%: pyproject.toml .ci/locks/%.lock .ci/venv
	@.ci/venv $*

.PHONY: help demo test test-slow compose-test lint types check bench soak flood fuzz celery-workload dashboards generate pictures secrets lock newest audit newer newer-rabbitmq celeries
