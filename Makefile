.PHONY: env book test check serve bench clean
env:   ; @ci/env.sh
book:  ; @ci/book.sh
test:  ; @ci/test.sh
check: ; @ci/check.sh
serve: ; @ci/serve.sh
bench: ; @ci/bench.sh
clean: ; rm -rf .venv .venv-partitions .runs build
