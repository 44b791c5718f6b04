.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh
DEMO_SECONDS ?= 20
SECONDS ?= 60
JOBS ?= 2
SEED ?=
STREAMING ?=
PLUGIN ?= wal2json
PYTHON := .venv/bin/python
METADATA := setup.cfg pyproject.toml pgevents/version.py

# What `make check` or `make test` installed serves the demo too.
DEMO_READY := $(if $(wildcard .venv/installed-dev),.venv/installed-dev,.venv/installed-demo)

.PHONY: help venv check test demo bench chaos reliability clean

help: ## Show the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(DEMO_READY) ## Stream a small shop's changes through private servers for DEMO_SECONDS (20; 0 = until Ctrl-C)
	@DEMO_SECONDS=$(DEMO_SECONDS) $(PYTHON) -m pgevents demo

test: .venv/installed-dev ## Run every test, against private PostgreSQL and RabbitMQ servers it starts itself
	$(PYTHON) scripts/services.py
	$(PYTHON) -m pytest -m "not alone" -n $(JOBS) --dist loadfile -ra --durations=10
	$(PYTHON) -m pytest -m alone -ra

check: .venv/installed-dev ## Lint, check formatting, types and imports, and run the unit tests
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(PYTHON) -m pytest tests/unit -ra
	@$(PYTHON) scripts/outliers.py

bench: .venv/installed-dev ## Measure throughput, latency and memory on private servers
	$(PYTHON) scripts/services.py
	$(PYTHON) -m bench

chaos: .venv/installed-dev ## Break everything at random for SECONDS (60) as SEED (a random one) has it, and count what was lost
	$(PYTHON) scripts/services.py
	@mkdir -p build
	$(PYTHON) -m chaos --seconds $(SECONDS) --plugin $(PLUGIN) $(if $(STREAMING),--streaming) $(if $(SEED),--seed $(SEED)) --json build/chaos-$(PLUGIN)$(if $(STREAMING),-streaming).json

reliability: .venv/installed-dev ## Run the tests that show what is promised, and write their counters into docs/reliability.md
	$(PYTHON) scripts/services.py
	$(PYTHON) -m pytest -m fault --reliability build/reliability.json
	$(PYTHON) -m scripts.reliability build/reliability.json $(wildcard build/chaos-*.json)

venv: .venv/installed-dev ## Make .venv with everything development needs

clean: ## Remove what the other commands made
	rm -rf .venv .demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find pgevents tests -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed-%: $(METADATA) scripts/venv
	@scripts/venv .venv $*
	@touch $@
