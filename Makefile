# Everything happens in .venv; fourbit/bootstrap.py makes it, and answers at once when it is up to date.

.DEFAULT_GOAL := help
.PHONY: help demo test lab site clean

BIN := .venv/bin
PYTEST_ARGS ?=
QUESTION ?= Why is the sky blue?

# $(call environment,EXTRAS): the first Python >= 3.11 that runs brings .venv up to date. PYTHON=... names one.
define environment
@for python in $(PYTHON) python3 python3.13 python3.12 python3.11 python; do \
	if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		exec "$$python" fourbit/bootstrap.py $(1); \
	fi; \
done; \
echo "Cannot go on: no Python 3.11 or newer was found (tried python3, python3.13, python3.12, python3.11, python)." >&2; \
echo "Install one (Debian, Ubuntu: sudo apt install python3 python3-venv; macOS: brew install python@3.12; or python.org)," >&2; \
echo "or name yours: make PYTHON=/path/to/python3.12 ..." >&2; \
exit 1
endef

help: ## this list
	@echo "Fourbit: make TARGET"
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-6s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## build the labs, grade a simulated class in the sandbox, then ask a language model in 4 bits (Linux)
	$(call environment,grade)
	@$(BIN)/fourbit demo
	@echo && echo "A language model, in 4 bits, on this machine:" && $(BIN)/fourbit models fetch smollm2
	@echo && echo "> $(QUESTION)" && $(BIN)/fourbit chat smollm2 --ask "$(QUESTION)" --max-tokens 80

test: ## lint, types and all tests
	$(call environment,grade cluster site dev)
	@echo "Lint (ruff)" && $(BIN)/ruff check .
	@echo "Types (mypy)" && $(BIN)/mypy
	@echo "Tests (pytest)" && $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lab: ## open lab 00 in JupyterLab with the student profile
	$(call environment,)
	@$(BIN)/fourbit lab 00

site: ## build the web site into build/site, and serve it on this machine until Ctrl-C
	$(call environment,site)
	@$(BIN)/mkdocs build --strict
	@$(BIN)/python site/serve.py

clean: ## remove what was built (never .venv, never labs/)
	rm -rf build .pytest_cache .mypy_cache .ruff_cache
