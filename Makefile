# Two commands matter: `make serve` runs the server, `make test` proves it.

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest -q

.PHONY: help serve test check soak bench bench-switch lock format clean

help:
	@echo "make serve   run the server on http://127.0.0.1:8080, files in ./data"
	@echo "make test    install what the tests need and run them all"
	@echo "make check   lint, types, layout and unit tests: no servers, no packages"
	@echo "make soak    the hunts of make test, longer: about an hour, SOAK=N times as long"
	@echo "make bench   compare with nginx and aiohttp; BENCH='--long --peer NAME=URL'"
	@echo "make bench-switch   every client and server on a network that changes every 5 s; SWITCH='--help' for more"
	@echo "make format  format the code;  make lock  pin the requirements anew"

serve:
	@scripts/venv runtime
	@exec $(BIN)/hmac-file-server serve $(ARGS)

check:
	@scripts/venv test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) -n 2 tests/unit

test:
	@scripts/test-packages
	@$(MAKE) --no-print-directory check
	@scripts/npm-packages
	$(PYTEST) -n 2 --dist loadfile tests/server tests/http tests/fuzz tests/stores tests/crash tests/faults tests/load \
	  tests/simulation tests/history tests/security tests/conformance tests/clients tests/client tests/uploader tests/page
	$(PYTEST) tests/network tests/guide tests/peers

# The hunts of `make test`, longer. Bounded: about an hour; SOAK=N makes it N times as long.
SOAK ?= 1

soak:
	@scripts/test-packages
	@scripts/venv test
	HMAC_FILE_SERVER_SOAK=$$((2000 * $(SOAK))) $(PYTEST) -n 2 --timeout 7200 tests/unit/uploads
	KILLS=$$((340 * $(SOAK))) POWER_CUTS=$$((200 * $(SOAK))) SYSCALL_SHARE=1 $(PYTEST) --timeout 7200 \
	  tests/crash/test_killed_servers.py tests/crash/test_power_cut_uploads.py tests/crash/test_sync_errors.py
	$(BIN)/python -m bench.syscalls
	$(BIN)/python -m bench.block_log --cuts $$((500 * $(SOAK)))
	$(BIN)/python -m bench.simulate --seeds $$((10000 * $(SOAK)))
	$(BIN)/python -m bench.history --histories $$((200 * $(SOAK)))
	$(BIN)/python -m bench.fuzz --requests $$((500000 * $(SOAK)))
	$(BIN)/python -m tests.http.agreement
	$(BIN)/python -m pip --disable-pip-version-check --quiet install --require-hashes -r requirements/fuzz.txt
	$(BIN)/python -m tests.fuzz --seconds $$((20 * $(SOAK)))
	$(BIN)/python -m bench.load slow-uploads drop pipelining last-byte quota cold-start
	$(BIN)/python -m bench.timing
	$(BIN)/python -m bench.takeover --switches $$((500 * $(SOAK)))

bench:
	@scripts/test-packages nginx-light gcc libc6-dev
	@scripts/venv test
	$(BIN)/python -m bench $(BENCH)

bench-switch:
	@scripts/test-packages
	@scripts/venv test
	@scripts/npm-packages
	@scripts/bench-packages
	$(BIN)/python -m bench.switch $(SWITCH)

lock:
	@scripts/venv test
	for name in runtime build test bench fuzz; do $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras \
	  --no-header --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	  --output-file requirements/$$name.txt requirements/$$name.in; done

format:
	@scripts/venv test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-bench .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
