# Two commands matter: `make chat` and `make test`. Everything runs in .venv and needs Python 3.11+, make and pip.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: chat test check long kernels faults faults-rank audit lock mutations reliability soak soak-shipped train eval bench docs wheel-check browser-speed animation clean

.venv/.runtime: constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet torch -c constraints.txt
	$(BIN)/python -m pip install --quiet -e . -c constraints.txt
	touch $@

.venv/.dev: .venv/.runtime
	$(BIN)/python -m pip install --quiet -e '.[dev]' -c constraints.txt
	touch $@

chat: .venv/.runtime  ## fetch weights and data once, then serve the chat on 127.0.0.1:7860
	$(BIN)/llmrec chat

check: .venv/.dev  ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/source_tree.py build/tree
	$(BIN)/mypy
	cd build/tree && ../../$(BIN)/lint-imports --config ../../.importlinter

test: check  ## the suite but for `make long`, hermetic, under five minutes on two cores
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile -m "not long"

long: .venv/.dev  ## the tests that take ten seconds or more each: whole benchmarks on toy models, ranking in processes
	$(BIN)/python -m pytest -m long

kernels: .venv/.dev  ## promises of equal bits on every OpenBLAS kernel, with 1, 2 and 4 threads; some minutes
	$(BIN)/python tests/kernels.py

faults: .venv/.dev  ## twenty kills -9 at random moments of training; the result must be the same bytes
	LLMREC_TEST_KILLS=20 $(BIN)/python -m pytest tests/test_training.py -k kill_9

faults-rank: .venv/.dev  ## twenty kills -9 at random moments of ranking, and a Ray job whose actor dies: the same bytes
	$(BIN)/python -m pip install --quiet -e '.[ray]' -c constraints.txt
	LLMREC_TEST_RANK_KILLS=20 $(BIN)/python -m pytest tests/test_batch_faults.py tests/test_ray.py

audit: .venv/.dev  ## bandit, deptry and pip-audit; says so when the database of vulnerabilities cannot be asked
	$(BIN)/python tests/audit.py

lock: .venv/.dev  ## constraints-hashed.txt from constraints.txt, after a version changed
	$(BIN)/python -m pip install --quiet uv
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/lock.py

mutations: .venv/.dev  ## break promises on purpose, in a copy; the tests must notice each
	$(BIN)/python tests/mutations.py

reliability: .venv/.dev  ## every promise attacked and every fault tried, twenty kills each; eval/results/reliability.json
	$(BIN)/llmrec eval --suite reliability --out eval/results

soak: .venv/.dev  ## a thousand turns, then fifty clients for ten minutes, on the real application with the toy model
	mkdir -p build
	$(BIN)/python tests/load_app.py --out build/load.json

soak-shipped: .venv/.dev  ## a thousand turns, then eight clients for five minutes, with the shipped model; half an hour
	mkdir -p build
	$(BIN)/python tests/load_app.py --model checkpoints/ml-100k --clients 8 --minutes 5 --out build/load-shipped.json

bench: .venv/.runtime  ## training and decoding beside the usual way, on this machine
	$(BIN)/llmrec bench --train --out eval/results
	$(BIN)/llmrec bench --out eval/results

docs: .venv/.dev  ## the documentation site, built strictly into site/
	$(BIN)/python -m pip install --quiet -e '.[docs]' -c constraints.txt
	$(BIN)/mkdocs build --strict

wheel-check: .venv/.dev  ## wheel and sdist, installed into a clean environment and tried there; some minutes
	rm -rf build/wheel-check
	$(BIN)/python -m pip install --quiet build -c constraints.txt
	$(BIN)/python -m build --outdir build/wheel-check/dist .
	$(PYTHON) -m venv build/wheel-check/venv
	build/wheel-check/venv/bin/python -m pip install --quiet torch -c constraints.txt
	build/wheel-check/venv/bin/python -m pip install --quiet build/wheel-check/dist/*.whl -c constraints.txt
	cd build/wheel-check && venv/bin/python -I ../../tests/smoke_installed.py
	build/wheel-check/venv/bin/python -m pip install --quiet --no-deps --force-reinstall build/wheel-check/dist/*.tar.gz
	cd build/wheel-check && venv/bin/python -I ../../tests/smoke_installed.py

train: .venv/.runtime  ## the shipped checkpoint from nothing; resumes where it was interrupted
	$(BIN)/llmrec train ml-100k --recipe ml-100k --out checkpoints/ml-100k --work runs/ml-100k

eval: .venv/.runtime  ## the accuracy table of MovieLens-100k
	$(BIN)/llmrec eval --suite accuracy --out eval/results

animation: .venv/.dev  ## docs/chat.gif, from a real conversation with the shipped model in headless Chromium
	cd tests && ../$(BIN)/python browser_animation.py

browser-speed: .venv/.dev  ## seconds to the first card and word in a real browser, with the shipped model
	cd tests && ../$(BIN)/python browser_speed.py

clean:
	rm -rf .venv build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
