# Two commands that need nothing but python3 and make:
#   make demo   sets up a virtual environment and runs the main job (Wordle, end to end, in ten minutes on 2 cores)
#   make test   sets up the same environment and passes every test
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints.txt

.PHONY: demo test lint setup clean

demo: setup
	OMP_NUM_THREADS=1 $(BIN)/qsft demo  # the models are small: threads that wait for each other on a busy machine cost more than they give

test: setup lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: $(VENV)/ready

# By exact versions where a newer one may be another interface; a user's own environment takes pyproject's ranges.
$(VENV)/ready: pyproject.toml $(CONSTRAINTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[test,lint]'
	touch $@

clean:
	rm -rf $(VENV) build dist src/*.egg-info
