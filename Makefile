# nearcached - `make help` explains the targets
#
# Objects, dependency files and programs go to build/, those of a flavour to build/FLAVOUR, so that
# all of them can stand beside each other. Every target may run with -j.
#
#   make CC=clang CFLAGS='-O3 -g' V=1         the usual variables; V=1 shows the commands
#   make FLAVOUR=asan                         builds a flavour (asan, tsan, cover) and runs nothing
#   make WERROR=1                             warnings are errors, as in `make test`
#   make install PREFIX=/usr DESTDIR=/tmp/x   SYSCONFDIR is /etc then, else PREFIX/etc

# make's own default is cc, which is not necessarily one that these flags were tried with.
ifeq ($(origin CC),default)
CC = gcc
endif
CLANG ?= clang
PYTHON ?= /usr/bin/python3
PKG_CONFIG ?= pkg-config
PREFIX ?= /usr/local
SYSCONFDIR ?= $(if $(filter /usr /usr/,$(PREFIX)),/etc,$(PREFIX)/etc)
UNITDIR ?= $(PREFIX)/lib/systemd/system
MANDIR ?= $(PREFIX)/share/man
DOCDIR ?= $(PREFIX)/share/doc/nearcached
BUILD ?= build
FUZZ_SECONDS ?= 60
SOAK_SECONDS ?= 1800
BACKEND ?=
ARGS ?=
PYTEST_ARGS ?=
# How many of the integration tests run at once; 0: one, in this process, for -s and --pdb.
PYTEST_JOBS ?= 2
BENCH_ARGS ?=
DEMO_ARGS ?=
TCL_ARGS ?=

VERSION := $(shell sed -n 's/^\#define NC_VERSION "\(.*\)"/\1/p' src/base/version.h)

# -- flavours ---------------------------------------------------------------------------------

SANITIZE_asan = -fsanitize=address,undefined -fno-sanitize-recover=undefined
SANITIZE_tsan = -fsanitize=thread
SANITIZE_fuzz = -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined
SANITIZE_cover = --coverage -fprofile-update=atomic
OPTIMISE_asan = -O1 -g
OPTIMISE_tsan = -O2 -g
OPTIMISE_fuzz = -O1 -g
OPTIMISE_cover = -O1 -g

ifneq ($(filter-out asan tsan fuzz cover,$(FLAVOUR)),)
$(error FLAVOUR is one of asan tsan fuzz cover, or empty)
endif
ifeq ($(FLAVOUR),)
OUT := $(BUILD)
CFLAGS ?= -O2 -g
# _FORTIFY_SOURCE means nothing without optimisation, and glibc warns. A level that is given counts.
HARDEN = -fstack-protector-strong $(if $(findstring _FORTIFY_SOURCE,$(CPPFLAGS) $(CFLAGS)),,\
    $(if $(filter -O1 -O2 -O3 -Os,$(CFLAGS)),-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2))
else
OUT := $(BUILD)/$(FLAVOUR)
CFLAGS ?= $(OPTIMISE_$(FLAVOUR))
HARDEN = $(SANITIZE_$(FLAVOUR)) -DNC_DEBUG
endif
BINARY := $(OUT)/nearcached
TOP := $(OUT)/nearcached-top

# -- flags ------------------------------------------------------------------------------------

PACKAGES = libevent hiredis jansson jemalloc inih libxxhash libsystemd libssl libcrypto
PACKAGE_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(PACKAGES) 2>/dev/null)
# jemalloc is named in every flavour: the cache's arena calls mallocx(). In a sanitizer flavour
# malloc() stays the sanitizer's, whose runtime comes first among the libraries.
PACKAGE_LIBS := $(shell $(PKG_CONFIG) --libs $(PACKAGES) 2>/dev/null)
# For nearcached-top alone.
TOP_LIBS := $(shell $(PKG_CONFIG) --libs ncursesw 2>/dev/null)

WARNINGS = -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Wcast-qual \
    -Wwrite-strings -Wformat=2 -Wundef -Wvla -Wstrict-prototypes -Wmissing-prototypes \
    -Wold-style-definition -Wpointer-arith -Wimplicit-fallthrough
# Statement expressions (OBJ_FROM) are the one GNU extension in use; gcc does not know the warning.
IS_CLANG := $(shell $(CC) --version 2>/dev/null | grep -c clang)
ifneq ($(IS_CLANG),0)
WARNINGS += -Wno-gnu-statement-expression
endif

COMPILE_FLAGS = -std=gnu11 -D_GNU_SOURCE -Isrc $(WARNINGS) -fno-common -fno-omit-frame-pointer \
    -fPIE -pthread $(HARDEN) $(PACKAGE_CFLAGS) $(CPPFLAGS) $(CFLAGS)
# WERROR changes no byte of an object, so it stands outside of what a change of flags rebuilds.
COMPILE = $(CC) $(COMPILE_FLAGS) $(if $(filter 1,$(WERROR)),-Werror) -MMD -MP
LINK = $(CC) $(CFLAGS) $(HARDEN) -pthread -pie -Wl,-z,relro,-z,now -Wl,--as-needed $(LDFLAGS)
LIBS = $(PACKAGE_LIBS) -lm $(LDLIBS)

ifeq ($(V),1)
Q =
say = @:
else
Q = @
say = @printf '  %-5s %s\n'
endif

# -- sources ----------------------------------------------------------------------------------

LIB := $(OUT)/libnearcached.a
LIB_OBJS := $(patsubst %.c,$(OUT)/%.o,$(filter-out src/top/main.c,$(sort $(wildcard src/*/*.c))))
MAIN_OBJS := $(OUT)/src/main.o
TOP_OBJS := $(OUT)/src/top/main.o

UNIT_SOURCES := $(sort $(wildcard tests/unit/*/*.c))
UNIT_TESTS := $(patsubst %.c,$(OUT)/%,$(filter $(wildcard tests/unit/*/test_*.c),$(UNIT_SOURCES)))
# What stands beside the tests of a floor and is none itself is linked into all of them.
UNIT_HELPER_OBJS := $(patsubst %.c,$(OUT)/%.o,\
    $(filter-out $(wildcard tests/unit/*/test_*.c),$(UNIT_SOURCES)))
helpers_of = $(filter $(OUT)/tests/unit/$(1)/%,$(UNIT_HELPER_OBJS))

MODEL := $(OUT)/tests/model/model
MODEL_OBJS := $(patsubst %.c,$(OUT)/%.o,$(sort $(wildcard tests/model/*.c)))

# loadgen and replay stand alone; bench_* measure parts of the daemon and are linked with them.
BENCH_ALONE := $(patsubst tests/bench/%.c,$(OUT)/bench/%,\
    $(filter-out $(wildcard tests/bench/bench_*.c),$(wildcard tests/bench/*.c)))
BENCH_LINKED := $(patsubst tests/bench/%.c,$(OUT)/bench/%,$(wildcard tests/bench/bench_*.c))
BENCH := $(BENCH_ALONE) $(BENCH_LINKED)

# What `make demo` needs beside the daemon.
DEMO := $(OUT)/demo/distance

FUZZ := $(patsubst %.c,$(OUT)/%,$(wildcard tests/fuzz/fuzz_*.c))

# libFuzzer comes with clang; in other flavours a fuzzer reads the files that it is given.
FUZZ_MAIN := $(if $(filter fuzz,$(FLAVOUR)),,$(OUT)/tests/fuzz/replay.o)
FUZZ_LINK := $(if $(filter fuzz,$(FLAVOUR)),-fsanitize=fuzzer)

OBJS := $(LIB_OBJS) $(MAIN_OBJS) $(TOP_OBJS) $(UNIT_SOURCES:%.c=$(OUT)/%.o) $(MODEL_OBJS) \
    $(BENCH:$(OUT)/bench/%=$(OUT)/tests/bench/%.o) $(FUZZ:%=%.o) $(FUZZ_MAIN) $(DEMO:%=%.o)

C_FILES = $(shell find src tests demo -name '*.[ch]')
SHELL_FILES = $(shell find scripts -name '*.sh') .ci/run

# Used in recipes: as many jobs as cores, unless make was given -j itself.
JOBS = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc 2>/dev/null || echo 2))
# gcc 12's ThreadSanitizer wants its addresses where they have always been.
ifeq ($(FLAVOUR),tsan)
RUN_TESTS := $(shell setarch -R true 2>/dev/null && echo setarch -R)
endif
export ASAN_OPTIONS ?= detect_leaks=1:allocator_may_return_null=1
export UBSAN_OPTIONS ?= print_stacktrace=1
export TSAN_OPTIONS ?= suppressions=$(CURDIR)/tests/tools/tsan.supp

# -- targets ----------------------------------------------------------------------------------

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDEXPANSION:
.SECONDARY:
MAKEFLAGS += --no-builtin-rules
.PHONY: all run demo deps test unit integration clients page fleet soak chaos tcl-suite check \
    bench asan tsan corpora fuzz model cover format lint lint-fast lint-slow docs install \
    uninstall dist deb package-test clean help FORCE

all: $(BINARY) $(TOP) ## build the daemon, build/nearcached, and nearcached-top

# Exported, not written into the recipe: it may hold a password. exec: a signal to make reaches what
# was started, and not a shell in between.
run: export BACKEND := $(BACKEND)
run: ## install what is missing, build, and start it; BACKEND=redis://... ARGS='--maxmemory 1gb'
	@scripts/install-deps.sh build run
	@$(MAKE) $(JOBS) all
	@exec env NEARCACHED_BIN='$(BINARY)' scripts/run.sh $(ARGS)

demo: ## what it is worth: six workloads with and without it, then a page to look at; DEMO_ARGS
	@scripts/install-deps.sh build run demo
	@$(MAKE) $(JOBS) all demo-programs
	@exec env NEARCACHED_BIN='$(abspath $(BINARY))' $(PYTHON) -B demo/demo.py $(DEMO_ARGS)

.PHONY: demo-programs
demo-programs: $(DEMO)

deps: ## install the packages that building, running and testing need
	@scripts/install-deps.sh build run test

test: ## what CI runs: install what is missing, build, unit tests, lint, integration tests
	@scripts/install-deps.sh build run test
	@$(MAKE) $(JOBS) WERROR=1 all unit-programs fuzz-programs
	@$(MAKE) lint-fast
	@$(MAKE) unit
	@$(MAKE) corpora
	@$(MAKE) integration
	@$(MAKE) clients
	@$(MAKE) page
	@cat $(OUT)/unit.summary

check: ## the long form before a release: lint, test, sanitizers, a minute of each fuzzer, the model
	@scripts/install-deps.sh build run test dev
	@$(MAKE) test
	@$(MAKE) lint-slow
	@$(MAKE) model
	@$(MAKE) asan
	@$(MAKE) tsan
	@$(MAKE) fuzz

.PHONY: unit-programs
unit-programs: $(UNIT_TESTS)

unit: $(UNIT_TESTS) ## unit tests (cmocka)
	@$(RUN_TESTS) scripts/run_unit.sh $(OUT) $(sort $(UNIT_TESTS))

integration: $(BINARY) $(DEMO) ## integration tests (pytest); PYTEST_ARGS='-k consistency -x'
	@NEARCACHED_BIN='$(abspath $(BINARY))' CC='$(CC)' $(RUN_TESTS) $(PYTHON) -m pytest -q -ra \
	    -p no:cacheprovider -n $(PYTEST_JOBS) tests/integration $(PYTEST_ARGS)

clients: $(BINARY) ## scenarios of real clients: npm, PHP, Ruby, Perl, Python
	@scripts/install-deps.sh build run test clients
	@scripts/install_clients.sh
	@NEARCACHED_BIN='$(abspath $(BINARY))' $(PYTHON) -m pytest -q -ra -p no:cacheprovider \
	    tests/integration/clients_scenarios.py $(PYTEST_ARGS)

page: $(BINARY) ## the status page in headless Chromium
	@scripts/install-deps.sh build run test page
	@scripts/install_clients.sh tests/page
	@NEARCACHED_BIN='$(abspath $(BINARY))' $(PYTHON) -m pytest -q -ra -p no:cacheprovider \
	    tests/integration/page_scenarios.py $(PYTEST_ARGS)

fleet: $(BINARY) ## 2 and 4 proxies under each class of faults, FLEET_SECONDS=600 each: hours
	@NEARCACHED_BIN='$(abspath $(BINARY))' FLEET_SECONDS=$${FLEET_SECONDS:-600} \
	    $(PYTHON) -m pytest -q -ra -s -p no:cacheprovider tests/integration/test_fleet.py \
	    $(PYTEST_ARGS)

chaos: $(BINARY) ## one proxy on bad days, fault after fault, CHAOS_SECONDS=60 each: half an hour
	@NEARCACHED_BIN='$(abspath $(BINARY))' CC='$(CC)' CHAOS_SECONDS=$${CHAOS_SECONDS:-60} \
	    $(RUN_TESTS) $(PYTHON) -m pytest -q -ra -s -p no:cacheprovider \
	    tests/integration/test_chaos.py $(PYTEST_ARGS)

soak: $(BINARY) ## a load that uses everything, for SOAK_SECONDS (1800): does anything drift?
	@NEARCACHED_BIN='$(abspath $(BINARY))' SOAK_SECONDS='$(SOAK_SECONDS)' \
	    $(PYTHON) tests/soak/soak.py --out $(OUT)/soak

tcl-suite: ## Redis's own test suite through the proxy; TCL_ARGS='--units unit/multi'
	@scripts/install-deps.sh build run tcl
	@$(MAKE) $(JOBS) all
	@NEARCACHED_BIN='$(abspath $(BINARY))' $(PYTHON) -B tests/tcl/run.py $(TCL_ARGS)

bench: ## benchmarks against redis-server, nutcracker and memcached; BENCH_ARGS='--only hit'
	@scripts/install-deps.sh build run test bench
	@$(MAKE) $(JOBS) all bench-programs
	@$(PYTHON) tests/bench/run.py $(BENCH_ARGS)

.PHONY: bench-programs
bench-programs: $(BENCH)

asan: ## unit and integration tests with AddressSanitizer and UBSan
	@$(MAKE) $(JOBS) FLAVOUR=asan all unit-programs fuzz-programs
	@$(MAKE) FLAVOUR=asan unit
	@$(MAKE) FLAVOUR=asan corpora
	@$(MAKE) FLAVOUR=asan integration

tsan: ## unit and integration tests with ThreadSanitizer
	@$(MAKE) $(JOBS) FLAVOUR=tsan all unit-programs
	@$(MAKE) FLAVOUR=tsan unit
	@$(MAKE) FLAVOUR=tsan integration

corpora: $(FUZZ) ## what fuzzers have found, and their seeds, once each; any compiler
	@scripts/run_corpora.sh $(OUT) $(sort $(FUZZ))

fuzz: ## run each fuzzer for FUZZ_SECONDS (60); needs clang
	@command -v $(CLANG) >/dev/null || \
	    { echo 'make fuzz needs clang: sudo scripts/install-deps.sh dev' >&2; exit 1; }
	@$(MAKE) $(JOBS) FLAVOUR=fuzz CC=$(CLANG) fuzz-programs
	@$(MAKE) FLAVOUR=fuzz CC=$(CLANG) fuzz-run

.PHONY: fuzz-programs fuzz-run
fuzz-programs: $(FUZZ)
fuzz-run: $(FUZZ)
	@scripts/run_fuzz.sh $(OUT) $(FUZZ_SECONDS) $(sort $(FUZZ))

model: $(MODEL) ## search the model of the coherence protocol; each rule off must break it
	@$(MODEL)

cover: ## coverage of the unit and integration tests; needs gcovr
	@command -v gcovr >/dev/null || \
	    { echo 'make cover needs gcovr: sudo scripts/install-deps.sh dev' >&2; exit 1; }
	@find $(BUILD)/cover -name '*.gcda' -delete 2>/dev/null; true
	@$(MAKE) $(JOBS) FLAVOUR=cover CC=gcc all unit-programs
	@$(MAKE) FLAVOUR=cover CC=gcc unit
	@$(MAKE) FLAVOUR=cover CC=gcc integration
	@gcovr --root . --object-directory $(BUILD)/cover --filter 'src/' --txt -

format: ## bring C sources into the tree's format (clang-format)
	@clang-format -i $(C_FILES)

lint: lint-fast lint-slow ## documents against tables, layers, style, format, shell scripts

lint-fast:
	$(say) LINT 'documents, layers, style'
	$(Q)status=0; for check in check_docs.py check_links.py 'gen_commands_doc.py --check' \
	    'gen_dashboard.py --check' lint_layers.py check_style.py; do \
	    $(PYTHON) -B scripts/$$check || status=1; \
	done; exit $$status

# Each of these tools is used where it is installed; who lacks one is told so.
lint-slow:
	$(say) LINT 'format, shell scripts, manual pages, systemd unit'
	$(Q)scripts/lint_tools.sh '$(SHELL_FILES)' $(C_FILES)

docs: ## bring the generated parts of docs/ up to date
	$(Q)$(PYTHON) -B scripts/gen_docs.py
	$(Q)$(PYTHON) -B scripts/gen_commands_doc.py
	$(Q)$(PYTHON) -B scripts/gen_dashboard.py

# What is installed stands here and nowhere else: uninstall and the packages follow it. A further
# program is one word in PROGRAMS; manual pages are found by their section.
PROGRAMS = $(BINARY) $(TOP)
UNITS = $(wildcard systemd/*.service systemd/*.socket)
MANUALS = $(wildcard docs/*.[1-8])
DOCUMENTS = README.md CHANGELOG.md LICENSE $(wildcard docs/*.md)
EXAMPLES = $(sort $(shell find conf -mindepth 2 -type f))

# An existing configuration is kept; the new one then stands beside it.
CONF := $(DESTDIR)$(SYSCONFDIR)/nearcached/nearcached.conf
install: all ## install below PREFIX (/usr/local), staged in DESTDIR
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/bin $(PROGRAMS)
	@if [ -e '$(CONF)' ] && ! cmp -s conf/nearcached.conf '$(CONF)'; then \
	    echo '$(CONF) is kept as it is; the new one is nearcached.conf.new'; \
	    install -D -m 644 conf/nearcached.conf '$(CONF).new'; \
	else \
	    install -D -m 644 conf/nearcached.conf '$(CONF)'; \
	fi
	install -D -m 644 -t $(DESTDIR)$(UNITDIR) $(UNITS)
	sed -i -e 's|/usr/local/bin/|$(PREFIX)/bin/|g' -e 's|/usr/local/etc/|$(SYSCONFDIR)/|g' \
	    $(addprefix $(DESTDIR)$(UNITDIR)/,$(notdir $(UNITS)))
	@for page in $(MANUALS); do \
	    install -D -m 644 -t $(DESTDIR)$(MANDIR)/man$${page##*.} $$page || exit 1; \
	done
	install -D -m 644 -t $(DESTDIR)$(DOCDIR) $(DOCUMENTS)
	@for example in $(EXAMPLES); do \
	    install -D -m 644 $$example $(DESTDIR)$(DOCDIR)/examples/$${example#conf/} || exit 1; \
	done

uninstall: ## remove what install put there; a changed configuration stays
	@if [ -e '$(CONF)' ] && ! cmp -s conf/nearcached.conf '$(CONF)'; then \
	    echo '$(CONF) was changed and stays'; \
	else \
	    rm -f '$(CONF)' '$(CONF).new'; rmdir '$(dir $(CONF))' 2>/dev/null; true; \
	fi
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/bin/,$(notdir $(PROGRAMS))) \
	    $(addprefix $(DESTDIR)$(UNITDIR)/,$(notdir $(UNITS)))
	@for page in $(notdir $(MANUALS)); do rm -f $(DESTDIR)$(MANDIR)/man$${page##*.}/$$page; done
	rm -rf $(DESTDIR)$(DOCDIR)

# Unit tests are run while it is built where DEB_BUILD_OPTIONS is set, and has no nocheck.
deb: export DEB_BUILD_OPTIONS ?= nocheck
deb: ## Debian packages of the tree as it is: build/deb/*.deb
	@scripts/install-deps.sh build package
	@scripts/build_deb.sh $(BUILD)/deb

# As root: it makes folders of Debian systems (build/rootfs), in which packages are installed.
package-test: ## packages built, installed, upgraded, purged; the Dockerfile's steps: minutes
	@scripts/install-deps.sh build run test package
	@$(PYTHON) -m pytest -q -ra -p no:cacheprovider tests/packages $(PYTEST_ARGS)

# Of the commit that is checked out: the same bytes wherever and whenever it is made.
dist: ## source tarball of the current commit: build/nearcached-VERSION.tar.gz
	@mkdir -p $(BUILD)
	$(Q)git -c tar.umask=0022 archive --format=tar --prefix=nearcached-$(VERSION)/ HEAD \
	    > $(BUILD)/nearcached-$(VERSION).tar
	$(Q)gzip -9nf $(BUILD)/nearcached-$(VERSION).tar
	@echo $(BUILD)/nearcached-$(VERSION).tar.gz

clean: ## remove build/
	rm -rf $(BUILD)

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

# -- rules ------------------------------------------------------------------------------------

$(BINARY): $(MAIN_OBJS) $(LIB)
	$(say) LINK $@
	$(Q)$(LINK) -o $@ $(MAIN_OBJS) $(LIB) $(LIBS)

$(TOP): $(TOP_OBJS) $(LIB)
	$(say) LINK $@
	$(Q)$(LINK) -o $@ $(TOP_OBJS) $(LIB) $(TOP_LIBS) $(LIBS)

# Made anew each time: a module that was removed must not live on in the archive.
$(LIB): $(LIB_OBJS) $(OUT)/.modules
	$(say) AR $@
	$(Q)rm -f $@
	$(Q)$(AR) rcs $@ $(LIB_OBJS)

$(UNIT_TESTS): $(OUT)/tests/unit/%: $(OUT)/tests/unit/%.o $$(call helpers_of,$$(*D)) $(LIB)
	$(say) LINK $@
	$(Q)$(LINK) -o $@ $(filter %.o,$^) $(LIB) -lcmocka $(LIBS)

$(MODEL): $(MODEL_OBJS)
	$(say) LINK $@
	$(Q)$(LINK) -o $@ $^

$(BENCH_ALONE): $(OUT)/bench/%: $(OUT)/tests/bench/%.o
	@mkdir -p $(@D)
	$(say) LINK $@
	$(Q)$(LINK) -o $@ $^ -lm

$(BENCH_LINKED): $(OUT)/bench/%: $(OUT)/tests/bench/%.o $(LIB)
	@mkdir -p $(@D)
	$(say) LINK $@
	$(Q)$(LINK) -o $@ $< $(LIB) $(LIBS)

$(DEMO): $(OUT)/demo/%: $(OUT)/demo/%.o
	$(say) LINK $@
	$(Q)$(LINK) -o $@ $^ $(LIBS)

$(FUZZ): $(OUT)/tests/fuzz/%: $(OUT)/tests/fuzz/%.o $(FUZZ_MAIN) $(LIB)
	$(say) LINK $@
	$(Q)$(LINK) $(FUZZ_LINK) -o $@ $(filter %.o,$^) $(LIB) $(LIBS)

$(OUT)/%.o: %.c $(OUT)/.flags
	@mkdir -p $(@D)
	$(say) CC $<
	$(Q)$(COMPILE) -c -o $@ $<

# The status page, as it is and compressed: assembled into its object, see src/admin/page.c.
PAGE := src/admin/page/status.html
$(OUT)/status.html.gz: $(PAGE)
	@mkdir -p $(@D)
	$(say) GZIP $@
	$(Q)gzip -9nc $< > $@

$(OUT)/src/admin/page.o: $(PAGE) $(OUT)/status.html.gz
$(OUT)/src/admin/page.o: private COMPILE_FLAGS += -DPAGE_PLAIN='"$(PAGE)"' \
    -DPAGE_PACKED='"$(OUT)/status.html.gz"'

# Rewritten only when it differs, so that other flags, or other modules, rebuild what they concern.
$(OUT)/.flags: FORCE
	@mkdir -p $(@D)
	@$(if $(PACKAGE_LIBS),,echo 'Libraries are missing. As root: scripts/install-deps.sh build' \
	    >&2; exit 1;) \
	    echo '$(CC) $(COMPILE_FLAGS)' | cmp -s - $@ || echo '$(CC) $(COMPILE_FLAGS)' > $@

$(OUT)/.modules: FORCE
	@mkdir -p $(@D)
	@echo '$(LIB_OBJS)' | cmp -s - $@ || echo '$(LIB_OBJS)' > $@

FORCE:

-include $(OBJS:.o=.d)
