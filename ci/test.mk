# What CI does, as a graph: most steps use one core, so that two run side by side. ci/test.sh sets the environment.
.PHONY: all form unit unit_apart doctests partitions kernels sanitizers book notebooks site
all: notebooks site

form:  # format, types, the form of the chapters
	ruff format --check .
	ruff check .
	mypy
	ouikit check

# Unit, property and structure tests, of which two folders take as long as all others, and run beside them; every
# example of a docstring; partitions against those of flwr-datasets; the compiled package, and the same under the
# address and undefined-behaviour sanitizers.
APART := tests/data tests/fl
unit: form
	pytest -q $(APART:%=--ignore=%)
unit_apart: form
	pytest -q $(APART)
doctests: form
	pytest -q --doctest-modules ouikit kernels/ouigemm
partitions: form
	ci/partitions.sh
kernels: form
	pytest -q kernels/tests
sanitizers: form
	kernels/sanitize.sh --fuzz-cases 200

# Every chapter at reduced scale, and the book with warnings as errors; it uses all cores by itself. Then every line
# of every notebook, on cached sweep cells, and the built site.
book: unit unit_apart doctests partitions kernels sanitizers
	ouikit book
notebooks: book
	pytest -q --nbval-lax --nbval-current-env --nbval-cell-timeout 600 chapters/
site: book
	python ci/check_site.py build/html
