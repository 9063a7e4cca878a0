# make demo: from nothing to results/report.html.   make test: everything that is checked.
PYTHON ?= python3
CORES ?= $(shell nproc)
TEST_JOBS ?= 2
SNAKEMAKE = .venv/bin/snakemake --cores $(CORES) --scheduler greedy --rerun-incomplete --show-failed-logs --quiet rules

.PHONY: demo test test-cluster lint environment lock unlock

demo: environment
	$(SNAKEMAKE)
	@echo "Report: $(CURDIR)/results/report.html"

environment:
	@$(PYTHON) envs/install.py

test:
	@$(PYTHON) envs/install.py --tests
	@$(PYTHON) tests/browser/install.py
	.venv/bin/python -m tests.checks
	.venv/bin/python -m pytest -n $(TEST_JOBS) --dist loadfile

# real Slurm and Apptainer on this machine; installs them on Debian 12 where they are missing, as root
test-cluster:
	@$(PYTHON) envs/install.py --tests
	@$(PYTHON) tests/cluster/install.py
	.venv/bin/python -m pytest tests/cluster --verbose --durations=15 --durations-min=5

lint:
	@$(PYTHON) envs/install.py --tests
	.venv/bin/python -m tests.checks

# after a killed snakemake
unlock:
	$(SNAKEMAKE) --unlock

lock:
	$(PYTHON) envs/lock.py
