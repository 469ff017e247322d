# What a contributor and CI run. Every target works from a fresh clone.

# Pinned, and run through the Go module proxy: nothing has to be installed.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

VERSION = $(shell scripts/version)

# The packages to test and lint: make test PACKAGES=./conversations/...
PACKAGES = ./...

# Two packages at a time: each may run several Redis servers or a browser, and
# more of them at once on a small machine only wait for each other.
TEST_FLAGS = -race -timeout 9m -p 2 -parallel 6

# The race detector makes garbage dear; the tests have memory and no time.
export GOGC = 400

.PHONY: test
test: ## install what is missing, then run all tests
	@scripts/install-test-tools
	go test $(TEST_FLAGS) $(PACKAGES)

.PHONY: lint
lint: ## formatting, go vet, staticcheck
	@unformatted=$$(gofmt -l .); \
	if [ -n "$$unformatted" ]; then echo "not formatted by gofmt:"; echo "$$unformatted"; exit 1; fi
	go vet $(PACKAGES)
	go run $(STATICCHECK) $(PACKAGES)

.PHONY: rules
rules: ## Prometheus' rules, alerts, runbooks and the dashboard, held by promtool and a real Prometheus
	@scripts/install-test-tools
	go test ./gateway -count=1 -run '^(TestRules|TestAlertsAreWhole|TestOperands|TestRulesNameWhatExists|TestPrometheus|TestGeneratedMetrics)'

.PHONY: bench
bench: ## webhook intake and event streams beside the least this machine can do
	scripts/bench

.PHONY: bench-outages
bench-outages: ## what messages of one provider notice while another fails, a minute each way
	scripts/bench-outages

.PHONY: generate
generate: ## print anew what is printed from the code
	scripts/generate

.PHONY: build
build: ## one static binary, ./paythread
	scripts/build $(VERSION)

.PHONY: image
image: ## container image, with docker or buildah
	scripts/image $(VERSION)

.PHONY: image-plain
image-plain: ## the Dockerfile's steps without an engine, and a look at what comes of them
	CGO_ENABLED=0 go run ./scripts/imageplain $(VERSION)

# A module of its own: go test ./... does not see it. Helm and the Kubernetes
# types come through the Go module proxy.
.PHONY: chart
chart: ## lint, render and decode the Helm chart, and see it fail on planted mistakes
	@scripts/install-test-tools
	cd scripts/chartcheck && go vet . && go test -timeout 9m .

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
