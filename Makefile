# `make up`: a throw-away host that serves the lesson's app. `make test`: everything that there is to test.
PYTHON ?= python3
IMAGE ?= debian13
VENV := .venv/bin
DEPLOYS ?= 20
LOAD := .slipway/load
JUDGES := .slipway/judges
COMPARE := .slipway/compare
# Which servers the tests on hosts are for: one of tests/combinations.
export COMBINATION ?= uwsgi-nginx
# Those that keep all promises, beside it: `make test-servers` tests them. `make compare` measures whatever is in that directory.
OTHERS := gunicorn-nginx uwsgi-apache
# Of the tests on hosts those that `make test` runs a part of, or not at all.
LONG := $(addprefix tests/behaviour/effects/test_,$(addsuffix .py,faults gate interrupted proof rollback secrets serving times web_servers)) \
    tests/behaviour/effects/test_examples.py::test_flask \
    tests/behaviour/edge/test_certificates.py::test_issue_and_renewals_lose_no_request_under_load \
    tests/behaviour/edge/test_inputs_edge.py::test_a_websocket_by_flask_sock_and_gunicorn
SCENARIOS := default edge
PYTHON_CODE := plugins tools tests
# The project's own tools first, whatever is active in the shell.
export PATH := $(CURDIR)/$(VENV):$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

.PHONY: help up down bootstrap test lint unit molecule test-load test-servers compare judges docs lock clean $(SCENARIOS)

help: ## Show what there is.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

up: ## Make a throw-away host and deploy the lesson's app to it (IMAGE=debian12, debian13 or one of a registry).
	@$(PYTHON) tools/up.py --image $(IMAGE)

down: ## Remove the throw-away host, its image and what `make up` wrote.
	@$(PYTHON) tools/up.py --down

bootstrap: ## Install what the project needs on this machine.
	@$(PYTHON) tools/bootstrap.py

test: bootstrap ## Run everything that there is: lint and tests without a host at once, then tests on hosts.
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint unit
	@$(MAKE) --no-print-directory molecule

lint: bootstrap ## Check the style of all that is written.
	ruff check .
	ruff check --select D --config 'lint.pydocstyle.convention="google"' plugins tools app/routes.py
	ruff format --check .
	mypy $(PYTHON_CODE)
	mypy --strict app/routes.py
	yamllint --strict .
	ansible-lint --offline
	python tools/docs.py --check

unit: bootstrap ## Run the tests that need no host.
	cd app && python -m pytest -q
	python -m pytest -q -n 2 tests/unit

molecule: bootstrap ## Run the tests on hosts: one Debian 12, one Debian 13; what they measured is in .slipway/figures.md.
	@rm -f .slipway/failures.log .slipway/figures.md
	@$(MAKE) --no-print-directory --jobs=2 $(SCENARIOS) || { cat .slipway/failures.log; exit 1; }
	@cat .slipway/figures.md

# At once, each with hosts of its own: they wait for round trips most of the time.
$(SCENARIOS):
	molecule test --scenario-name $@

test-load: bootstrap ## Deploy and roll back under load (DEPLOYS=20), and run the long tests, on hosts of its own; see .slipway/load.
	@rm -f .slipway/failures.log .slipway/figures.md
	python tools/hosts.py create --state $(LOAD) debian12=debian12 debian13=debian13
	ansible-playbook -i tests/load/inventory site.yml -e @tests/combinations/$(COMBINATION).yml
	python -m pytest -q tests/load $(LONG) --long --combination=$(COMBINATION) --sudo --hosts=ssh://admin@debian12,ssh://root@debian13 \
	    --ssh-config=$(LOAD)/ssh_config --state=$(LOAD) --scenario-inventory=tests/load/inventory --deploys=$(DEPLOYS)
	cat $(LOAD)/figures.md .slipway/figures.md
	python tools/hosts.py destroy --state $(LOAD)

test-servers: bootstrap ## Run the tests on hosts, the long ones too, for each other combination of servers.
	@for one in $(OTHERS); do $(MAKE) --no-print-directory molecule test-load COMBINATION=$$one || exit 1; done

compare: bootstrap ## Measure the same app under each combination of servers, for docs/measurements.md, on a host of its own.
	python tools/hosts.py create --state $(COMPARE) debian13=debian13
	python -m pytest -q tests/compare --sudo --hosts=ssh://root@debian13 --ssh-config=$(COMPARE)/ssh_config \
	    --state=$(COMPARE) --scenario-inventory=tests/compare/inventory
	python tools/hosts.py destroy --state $(COMPARE)

judges: bootstrap ## Have third parties judge HTTPS, headers, sandboxes and slow visitors, on hosts of its own.
	python tools/hosts.py create --state $(JUDGES) debian12=debian12 debian13=debian13
	python -m pytest -q tests/judges --combination=$(COMBINATION) --sudo --hosts=ssh://admin@debian12,ssh://root@debian13 \
	    --ssh-config=$(JUDGES)/ssh_config --state=$(JUDGES) --scenario-inventory=tests/judges/inventory
	cat $(JUDGES)/verdicts.md
	python tools/hosts.py destroy --state $(JUDGES)

docs: bootstrap ## Write the generated parts of the documentation.
	python tools/docs.py

lock: bootstrap ## Lock anew what the controller, a release, the app and the examples need.
	python tools/lock.py

clean: down ## Remove the environment as well.
	rm -rf .venv .slipway
