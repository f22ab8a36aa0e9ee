# Every target sets itself up; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install demo test check docs format bench clean
help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	@echo "== making the environment in $(VENV) (pinned by constraints.txt)"
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,demo]'
	@touch $@

install: $(STAMP) ## the environment in .venv, with .venv/bin/matyan-celery

demo: $(STAMP) ## train small models through it, kill a worker midway, check every value; EPOCHS=n KEEP=1 UI=1 STORE=fdb
	@$(BIN)/python -m demo $(if $(EPOCHS),--epochs $(EPOCHS)) $(if $(KEEP),--keep) $(if $(UI),--ui) $(if $(STORE),--store $(STORE))

test: $(STAMP) ## all tests: unit, contract, conformance, simulation, integration on real servers
	@echo "== having the servers and tools that the tests run: the first time some minutes, then from ~/.cache/matyan-celery"
	@$(BIN)/python -m tests.prepare
	@echo "== unit, contract and conformance tests, the simulation, and integration on real Kafka, Redis and workers;"
	@echo "   four at a time, since much of it waits: some thirteen minutes on two cores"
	$(BIN)/python -m pytest -n 4 --dist worksteal -m "not three_brokers"
	@echo "== a Kafka cluster of three brokers, on its own: brokers die, leaders move, logs are cut; four minutes"
	$(BIN)/python -m pytest -m three_brokers tests/integration
	@echo "== passed. Next: make demo, or read docs/guarantees.md"

bench: $(STAMP) ## benchmarks: CPU a record in apply, records a second end to end, objects a second of a cleanup
	@$(BIN)/python -m benchmarks.apply
	@$(BIN)/python -m benchmarks.end_to_end
	@$(BIN)/python -m benchmarks.recovery_page 100000 5000
	@$(BIN)/python -m benchmarks.prefix_delete

format: $(STAMP) ## rewrite the sources in the project's format
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

check: $(STAMP) ## ruff, format, strict types, reference pages as the code is
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m matyan_celery.reference --check

docs: $(STAMP) ## write the reference pages in docs/reference from the code
	$(BIN)/python -m matyan_celery.reference

clean: ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info build
