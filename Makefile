# Everything runs in .venv; the first target that needs it makes it.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo up test lint format bench clean help

help:           ## what there is
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' $(MAKEFILE_LIST)

demo: $(READY)  ## play one car's life, write demo.html
	$(BIN)/pnclab demo

up: $(READY)    ## run the whole ecosystem until Ctrl-C
	$(BIN)/pnclab up

test: $(READY)  ## all tests
	$(BIN)/pytest -n 2 --dist loadfile

lint: $(READY)  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY) ## put the format right
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) ## figures against peers, in the same run
	$(BIN)/pnclab bench --output bench.json

clean:          ## remove what the targets made
	rm -rf $(VENV) .josev build dist pnclab-data demo.html bench.json \
	    .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The constraints pin every package; the project itself is installed in place.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@
