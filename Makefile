# The course in two commands:   make book    make test
#
# Everything is installed into .venv; nothing needs to be activated.  Choose another interpreter
# with   make book PYTHON=python3.12   and more test processes with   make test JOBS=8

PYTHON ?= python3
JOBS ?= 2

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
# What was installed is remembered here; it goes when .venv goes.
STAMPS := $(VENV)/.stamps
INDEX := _build/html/index.html

# The exact versions that were tested; `make unit CONSTRAINTS=/dev/null` takes the newest ones.
CONSTRAINTS ?= constraints.txt
# One version of torch, asked for by its own line below.
TORCH := $(shell sed -n 's/^torch==/==/p' $(CONSTRAINTS))
NOTEBOOKS ?= $(shell find chapters book -name '*.ipynb' -not -path '*/.*' -not -path '*/_build/*' 2>/dev/null | sort)
# Everything that a page may show.
BOOK_SOURCES := $(shell find _config.yml _toc.yml book chapters results fewshot_course -type f \
	-not -path '*/.*' -not -path '*/__pycache__/*' 2>/dev/null | sort)

# One thread a process: numbers do not depend on the machine's cores, and processes do not
# fight over them.
export OMP_NUM_THREADS = 1
export OPENBLAS_NUM_THREADS = 1
export MKL_NUM_THREADS = 1
export TF_NUM_INTRAOP_THREADS = 1
export TF_NUM_INTEROP_THREADS = 1
export TF_CPP_MIN_LOG_LEVEL = 3

.PHONY: help book test lint unit coverage check-notebooks pairs nbval check-book check-colab colab-image kills \
	notebooks install install-book clean FORCE
.DELETE_ON_ERROR:

help:
	@echo "make book             build the pages from the committed notebooks and open them"
	@echo "make test             everything CI checks: lint, unit, check-notebooks, check-book"
	@echo "make lint             ruff, codespell and mypy, the code in the notebooks included"
	@echo "make unit             the package's tests"
	@echo "make coverage         the same, and the lines that ran into book/coverage.json (for the status page)"
	@echo "make check-notebooks  pairs in step; nbval runs every notebook and compares every number"
	@echo "make check-book       the book built strictly, and its pages in a browser"
	@echo "make colab-image      install the package and run all notebooks in Colab's image (Docker)"
	@echo "make kills            trainings, sweeps and writers killed at random moments, many times"
	@echo "make notebooks        execute all notebooks anew (after a change; takes minutes)"
	@echo "make install          all that a developer needs, into .venv"
	@echo "make clean            remove built pages and caches; .venv stays"

# --- installing ---------------------------------------------------------------------------------

$(STAMPS)/venv:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("The course needs Python 3.11 or newer; $(PYTHON) is %d.%d. Name another one: make PYTHON=/path/to/python3.12" % v[:2])'
	@test -x $(PY) || { echo "Making $(VENV)"; $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }; }
	@mkdir -p $(STAMPS)
	@touch $@

$(STAMPS)/book: $(STAMPS)/venv pyproject.toml constraints.txt
	@echo "Installing what the book needs (no framework; a minute or two the first time)"
	@$(PIP) install -q -c $(CONSTRAINTS) -e ".[book]"
	@touch $@

$(STAMPS)/all: $(STAMPS)/book
	@echo "Installing the frameworks and the test tools (some minutes the first time)"
	@$(PIP) install -q "torch$(TORCH)"
	@$(PIP) install -q -c $(CONSTRAINTS) -e ".[torch,tf,text,compression,scaling,cluster,report,book,test]"
	@touch $@

install-book: $(STAMPS)/book
install: $(STAMPS)/all

# --- the book -----------------------------------------------------------------------------------

# The list of those files, rewritten only when it changes: a page that was removed counts too.
$(STAMPS)/pages: $(STAMPS)/venv FORCE
	@printf '%s\n' $(BOOK_SOURCES) | cmp -s - $@ || printf '%s\n' $(BOOK_SOURCES) > $@

FORCE:

# Built anew, strictly, whenever anything a page may show has changed; otherwise left as it is.
$(INDEX): $(STAMPS)/book $(STAMPS)/pages $(BOOK_SOURCES)
	@$(PY) book/_tools/build.py --quiet
	@touch $@

book: $(INDEX)
	@$(PY) book/_tools/open_book.py $(INDEX)

# --- checks -------------------------------------------------------------------------------------

test: lint unit check-notebooks check-book
	@echo "make test: all checks passed"

lint: $(STAMPS)/all
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) book/_tools/notebooks.py lint
	$(PY) -m codespell_lib .
	$(PY) -m mypy

# Files are dealt out by name: by the number of their tests, as is the default, the slowest with few
# tests would come last and keep one process waiting.
#
# Python 3.12 and later count the lines that run at almost no cost, and the count is held against that
# on the status page; 3.11 would take a third more time for it.
UNIT := -m pytest tests --ignore=tests/book -n $(JOBS) --dist loadfile --no-loadscope-reorder
COUNT := --cov=fewshot_course --cov-report= --cov-report=json:$(STAMPS)/coverage.json

unit: $(STAMPS)/all
	@if $(PY) -c 'import sys; sys.exit(sys.version_info < (3, 12))'; then \
		set -x; COVERAGE_CORE=sysmon $(PY) $(UNIT) $(COUNT) && \
		$(PY) book/_tools/covered.py check $(STAMPS)/coverage.json; \
	else \
		set -x; $(PY) $(UNIT); \
	fi

coverage: $(STAMPS)/all
	COVERAGE_CORE=$$($(PY) -c 'import sys; print("sysmon" if sys.version_info >= (3, 12) else "ctrace")') $(PY) $(UNIT) $(COUNT)
	$(PY) book/_tools/covered.py store $(STAMPS)/coverage.json

check-notebooks: pairs nbval

pairs: $(STAMPS)/all
	$(PY) book/_tools/notebooks.py check

nbval: $(STAMPS)/all
	@test -n "$(NOTEBOOKS)" || { echo "no notebook found under chapters/ and book/" >&2; exit 1; }
	PYTHONPATH=tests/notebooks $(PY) -m pytest -p nbval_tolerance --nbval --nbval-current-env --nbval-cell-timeout=300 -n $(JOBS) --dist loadfile $(NOTEBOOKS)

# The book is the one that `make book` builds, strictly. Tests are dealt out one by one: the few that
# look at all pages take a minute each, and stand side by side.
check-book: $(STAMPS)/all $(INDEX)
	FEWSHOT_COURSE_BOOK=_build/html $(PY) -m pytest tests/book -n $(JOBS) --dist load --maxschedchunk 1

# In Colab's own Python, where numpy, torch and tensorflow are and must stay: no .venv, no stamps.
check-colab:
	$(PYTHON) book/_tools/colab.py

# The image is public and large; what it has changes every few weeks.
COLAB_IMAGE ?= us-docker.pkg.dev/colab-images/public/runtime
colab-image:
	docker pull --quiet $(COLAB_IMAGE)
	@# The image changes under its name; with this digest as COLAB_IMAGE a run can be repeated.
	docker image inspect --format '{{index .RepoDigests 0}}' $(COLAB_IMAGE)
	docker run --rm --volume "$(CURDIR)":/course --workdir /course --entrypoint make $(COLAB_IMAGE) \
		check-colab PYTHON=python3

# As many kills of each estimator, and everything else of the tests that kills.
KILLS ?= 20
kills: $(STAMPS)/all
	FEWSHOT_COURSE_KILLS=$(KILLS) $(PY) -m pytest -n $(JOBS) tests -k "kill or leave_neither or end_with_the_process"

# --- making -------------------------------------------------------------------------------------

notebooks: $(STAMPS)/all
	$(PY) book/_tools/notebooks.py sync-install-cells
	$(PY) book/_tools/notebooks.py run
	$(PY) book/_tools/figure_data.py

clean:
	rm -rf _build build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
