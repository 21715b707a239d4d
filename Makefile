# make lab    set up .venv, open JupyterLab on your own copy of the lessons
# make test   set up .venv, run everything that CI runs
# make check  under three minutes: ruff, mypy, and the quick tests of what changed since main
# make test-processors  test as other processors would, some hours; with STEPS=quick the rooms of the package alone
# make build  rebuild the notebooks from solutions/*.py
# make book   the web book, in build/book/html, from the solutions as they are
# make course run all lessons at the size of this machine, audit them, report on one page; time and memory:
#             docs/timings.json; then their slow proofs (tests marked course), and 1,000 layers below 2.7 nats a byte
# make record train the recorded runs of lessons 00 and 08 and of the laptop's preset (about two hours); then the tests
#             marked record
# make bench  compare with other libraries, and measure
# make clean  remove what these made, never your workspace

PYTHON ?= python3
BIN := .venv/bin
# A waiting thread must sleep: two spinning threads on two busy cores are up to fifty times slower.
export OMP_WAIT_POLICY := PASSIVE
# Packages of other environments must not come before those of .venv.
unexport PYTHONHOME PYTHONPATH

COURSE := runs/course-$(shell date +%Y%m%d-%H%M%S)

.PHONY: lab test check test-processors build book course record bench clean

lab:
	@$(PYTHON) install.py
	@$(BIN)/deepnet-edu lab

test:
	@$(PYTHON) install.py --dev
	$(BIN)/python tests/run.py

check:
	@$(PYTHON) install.py --dev
	$(BIN)/python -m tests.check

test-processors:
	@$(PYTHON) install.py --dev
	$(BIN)/python tests/run.py --processors $(STEPS)

build:
	@$(PYTHON) install.py --dev
	$(BIN)/deepnet-edu build

book:
	@$(PYTHON) install.py --dev
	$(BIN)/deepnet-edu book

course:
	@$(PYTHON) install.py --dev
	$(BIN)/deepnet-edu run --profile $(if $(shell nvidia-smi -L 2>/dev/null | grep ^GPU),gpu,cpu) --slots 1 --timings --out $(COURSE); \
	status=$$?; $(BIN)/deepnet-edu report $(COURSE) && exit $$status
	$(BIN)/python tests/run.py --marked course
	$(BIN)/python benchmarks/laptop_1000.py --below 2.7

record:
	@$(PYTHON) install.py --dev
	$(BIN)/deepnet-edu run 00 11 --profile record --slots 1 --resume --out runs/record
	$(BIN)/python benchmarks/explorer_grid.py
	$(BIN)/python benchmarks/laptop_1000.py
	$(BIN)/python tests/run.py --marked record

bench:
	@$(PYTHON) install.py --dev
	$(BIN)/python -m pip install --quiet --no-deps -r benchmarks/peers.txt -r tests/peers/reviewed.txt
	$(BIN)/python -m pip install --quiet --no-deps --target .venv/peers/x-transformers-1.20.0 x-transformers==1.20.0
	$(BIN)/python -m pytest -q -m peers tests/peers
	$(BIN)/python benchmarks/peers.py
	$(BIN)/python benchmarks/updates.py
	$(BIN)/python benchmarks/depth.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/step_time.py
	$(BIN)/python benchmarks/training_cpu.py
	$(BIN)/python benchmarks/compile_layer.py
	$(BIN)/python benchmarks/explorers.py
	$(BIN)/python benchmarks/roads.py
	$(BIN)/python benchmarks/rules.py
	$(BIN)/python benchmarks/tables.py
	$(BIN)/python benchmarks/checks.py
	$(BIN)/python benchmarks/distributed.py
	$(BIN)/python benchmarks/batch_report.py

clean:
	rm -rf .venv runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
