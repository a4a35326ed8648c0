# Everything runs inside .venv, made once from requirements.lock and left alone afterwards.
PYTHON ?= python3
PROFILE ?= auto
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: verify help study test test-long lab bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vaestudy needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

study: $(READY) ## run the three stages into reports/<profile>/ (PROFILE=smoke|laptop|night|gpu|paper)
	$(BIN)/python -m vaestudy study --profile $(PROFILE)

test: $(READY) ## lint, then the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2

test-long: $(READY) ## the tests that take minutes: kills, browsers, every setting, whole matrices
	$(BIN)/python -m pytest -n 2 -m long

lab: $(READY) ## open JupyterLab on the notebooks, whose outputs stay out of git
	@git config filter.notebook-outputs.clean "$(BIN)/jupyter nbconvert --clear-output --to notebook --stdin --stdout --log-level=ERROR" || true
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) --notebook-dir=. notebooks/01_vae.ipynb

bench: $(READY) ## measure speed and memory against their peers and limits
	$(BIN)/python tests/benchmarks/run.py

verify: $(READY) ## compare reports/<profile>/ with the published report (PROFILE=laptop|night)
	$(BIN)/python -m vaestudy verify reports/$(if $(filter auto,$(PROFILE)),laptop,$(PROFILE))

clean: ## remove runs, caches and generated reports, the night's records among them (data stays)
	rm -rf runs reports/smoke reports/laptop reports/night reports/gpu reports/paper .pytest_cache .ruff_cache .hypothesis
	find vaestudy tests notebooks -name __pycache__ -prune -exec rm -rf {} +
