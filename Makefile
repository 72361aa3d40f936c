# `make` lists what there is to do. Each command does the set-up itself, once.

PYTHON ?= python3
VENV := .venv/bin/python
READY := .venv/ready

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-browser lint notebooks clean

# Notebooks run with .venv's Python even where the user has registered another one under the kernel name "python3".
export JUPYTER_PREFER_ENV_PATH := 1
unexport JUPYTER_PATH

help:  ## show this list
	@echo "make ..."
	sed -nE 's/^([a-z-]+):[^#]*## (.*)/  \1\t\2/p' Makefile | expand -t 16

setup: $(READY)  ## install all that dmxlib needs into .venv; the other commands do this themselves
	@echo "dmxlib is set up in .venv."

demo: $(READY)  ## separate the voice from a short song made on the spot
	@$(VENV) -m dmxlib.demo

# Without a GPU and without downloads, so that it says the same everywhere.
test: $(READY)  ## check that everything works
	@CUDA_VISIBLE_DEVICES= HF_HUB_OFFLINE=1 $(VENV) -m pytest

# Where no Chromium is installed `make test` skips these.
test-browser: $(READY)  ## try the listening test in a real browser; installs Debian's chromium and chromium-driver
	@if ! type -P chromium chromedriver >/dev/null; then
	    root=env; [ $$(id -u) = 0 ] || root="sudo -n"
	    $$root apt-get -qq update >/dev/null || true
	    if ! $$root DEBIAN_FRONTEND=noninteractive apt-get -y -qq install \
	            --no-install-recommends chromium chromium-driver >/dev/null; then
	        echo "Please install chromium and chromium-driver and call make again." >&2
	        exit 1
	    fi
	fi
	CUDA_VISIBLE_DEVICES= HF_HUB_OFFLINE=1 $(VENV) -m pytest -k browser

lint: $(READY)  ## check the style of the code
	@$(VENV) -m ruff check --quiet .
	$(VENV) -m ruff format --quiet --check .
	echo "The style is fine."

# On the PATH, so that a cell with `!accelerate launch ...` finds .venv's.
notebooks: $(READY)  ## run every notebook; readable copies land in results/notebooks
	@PATH="$(CURDIR)/.venv/bin:$$PATH" $(VENV) -m dmxlib.notebooks

clean:  ## remove .venv and everything else that can be made again; data/ and results/ stay
	@rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache
	find dmxlib tests -name __pycache__ -prune -exec rm -r {} +
	echo "Clean. Your data and results are untouched."

# The file READY is made last, so a set-up that was broken off is taken up again; it is made anew when a version
# changes. A Debian machine has gcc and make but maybe not the rest: museval looks for ffmpeg and ffprobe when it is
# imported, Debian splits venv and the headers off Python, and pesq and pyworld are compiled.
$(READY): requirements.txt pyproject.toml
	@version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || echo missing)
	if ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
	    echo "dmxlib needs Python 3.10 or newer, $(PYTHON) is $$version; name another: make setup PYTHON=python3.11" >&2
	    exit 1
	fi
	missing() {
	    for tool in ffmpeg gcc g++; do type -P $$tool >/dev/null || echo $$tool; done
	    $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || echo python$$version-venv
	    include=$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
	    [ -e "$$include/Python.h" ] || echo python$$version-dev
	}
	wanted=$$(echo $$(missing))
	if [ -n "$$wanted" ]; then
	    root=env; [ $$(id -u) = 0 ] || root="sudo -n"
	    if type -P apt-get >/dev/null && $$root true 2>/dev/null; then
	        echo "Installing $$wanted ..."
	        $$root apt-get -qq update >/dev/null || true
	        $$root DEBIAN_FRONTEND=noninteractive apt-get -y -qq install \
	            --no-install-recommends $$wanted >/dev/null || true
	    fi
	    wanted=$$(echo $$(missing))
	    if [ -n "$$wanted" ]; then
	        echo "Please install $$wanted and call make again; on Debian or Ubuntu: sudo apt-get install $$wanted" >&2
	        exit 1
	    fi
	fi
	echo "Setting up (once: 5 to 10 minutes, a download of 3 GB, 7 GB on disk) ..."
	$(PYTHON) -m venv .venv
	$(VENV) -m pip install --quiet --upgrade pip  # Debian 12's own builds pesq in a way that setuptools has given up
	PYTHONWARNINGS=ignore $(VENV) -m pip install --quiet -r requirements.txt -e '.[extra,dev]'
	touch $(READY)
