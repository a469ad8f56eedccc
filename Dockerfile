# The gateway in a small image: no shell, not root, nothing to write but /data.
#
#   docker build -t tenantd .
#   docker build --build-arg BUILD_IMAGE=… --build-arg RUNTIME_IMAGE=… -t tenantd .
ARG BUILD_IMAGE=docker.io/library/rust:1.95-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot

# hadolint ignore=DL3006
FROM ${BUILD_IMAGE} AS build
WORKDIR /src
COPY . .
RUN cargo build --locked --profile dist --bin tenantd \
    && mkdir -p /out/data/tenants.d /out/data/state /out/data/certs

# hadolint ignore=DL3006
FROM ${RUNTIME_IMAGE}
LABEL org.opencontainers.image.title="tenantd" \
      org.opencontainers.image.description="Serves many tenants' MCP servers from one machine and one public IP" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /src/target/dist/tenantd /usr/bin/tenantd
COPY --from=build --chown=65532:65532 /out/data /data
USER 65532:65532
WORKDIR /data
# High ports, so that no capability is needed. The admin listener stays on the container's own loopback.
ENV TENANTD_TENANTS=/data/tenants.d \
    TENANTD_STATE=/data/state \
    TENANTD_CERTS=/data/certs \
    TENANTD_LISTEN=0.0.0.0:8443 \
    TENANTD_LOG=json
EXPOSE 8443
VOLUME ["/data"]
HEALTHCHECK --interval=15s --timeout=3s --start-period=10s CMD ["/usr/bin/tenantd", "healthcheck"]
ENTRYPOINT ["/usr/bin/tenantd"]
CMD ["serve"]
