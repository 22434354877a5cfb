.PHONY: env book test serve bench clean
env:   ; @ci/env.sh
book:  ; @ci/book.sh
test:  ; @ci/test.sh
serve: ; @ci/serve.sh
bench: ; @ci/bench.sh
clean: ; rm -rf .venv .runs build
