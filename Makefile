# Each target makes its own virtual environment first. PYTHON=python3.12 make test chooses the interpreter.
PYTHON ?= python3
VENV   ?= .venv
RUN     = $(VENV)/bin/python
# What is installed is remembered by name: the interpreter and the extras. Another interpreter makes .venv anew.
interpreter := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)

# In the environment as XLA_FLAGS, before `make demo` or any program, it takes less memory traffic on a CPU:
# docs/speed.md, "Loops joined".
JOIN    = --xla_backend_extra_options=xla_cpu_use_multi_output_fusion

.PHONY: demo multihost test gallery check bench bench-accelerators clean

demo: $(VENV)/installed-$(interpreter)-examples
	$(RUN) -m examples.train_resnet

multihost: $(VENV)/installed-$(interpreter)-examples
	$(RUN) -m examples.multihost

gallery: $(VENV)/installed-$(interpreter)-examples
	$(RUN) -m examples.textbook --out docs/gallery

test: $(VENV)/installed-$(interpreter)-test
	$(RUN) -m pytest

check: $(VENV)/installed-$(interpreter)-check
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright

bench: $(VENV)/installed-$(interpreter)-test
	$(RUN) -m benchmarks.traffic --write
	XLA_FLAGS=$(JOIN) $(RUN) -m benchmarks.traffic --write
	$(RUN) -m benchmarks.step_time --write
	XLA_FLAGS=$(JOIN) $(RUN) -m benchmarks.step_time --write
	$(RUN) -m benchmarks.minimize --write
	$(RUN) -m benchmarks.sharded --write
	$(RUN) -m benchmarks.scaling --write

bench-accelerators: # in an environment of its own: elsewhere jax would start the accelerators, which are not there
	$(MAKE) VENV=$(VENV)/accelerators $(VENV)/accelerators/installed-$(interpreter)-accelerators
	$(VENV)/accelerators/bin/python -m benchmarks.compiled_for --write

clean:
	rm -rf $(VENV) runs

$(VENV)/installed-$(interpreter)-%: pyproject.toml
	@test -n "$(interpreter)" || { echo "There is no $(PYTHON) here. Name one: make PYTHON=python3.12 ..."; exit 1; }
	@ls $(VENV)/installed-$(interpreter)-* >/dev/null 2>&1 || rm -rf $(VENV)
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	@touch $@
