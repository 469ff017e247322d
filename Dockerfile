# One static binary in an empty image. Built for the machine that builds and
# compiled for the machine that runs, so that another platform needs no
# emulation. The base is named by its version and not by its digest: a patch of
# Go's, with the authorities and time zones of its day, is wanted in the next
# build, and nothing else of it is in the image.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src

# The modules change less often than the code: a layer of their own.
COPY go.mod go.sum ./
RUN go mod download

COPY . .
ARG VERSION=dev
ARG TARGETOS
ARG TARGETARCH
RUN GOOS=$TARGETOS GOARCH=$TARGETARCH scripts/build "$VERSION" /out/paythread

FROM scratch
ARG VERSION=dev
LABEL org.opencontainers.image.title="Paythread" \
      org.opencontainers.image.description="Self-hosted chat-to-pay gateway" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION"

# To trust the providers' certificates, and to know the merchants' time zones.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /usr/local/go/lib/time/zoneinfo.zip /usr/share/zoneinfo.zip
ENV ZONEINFO=/usr/share/zoneinfo.zip

COPY --from=build /out/paythread /paythread

# No name for it: there is no /etc/passwd. Kubernetes' runAsNonRoot wants a number.
USER 65532:65532

# No HEALTHCHECK: there is nothing here to ask with, and whoever runs the image
# asks /livez and /readyz of the admin listener.
# Public listener; admin listener, not for the internet.
EXPOSE 8080 9090

ENTRYPOINT ["/paythread"]
