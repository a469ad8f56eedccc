# The gateway in a small image: no shell, not root, nothing to write but /data.
#
# scripts/package.sh builds it from packaged files, and docker from the source:
#
#   docker build -t tenantd .
ARG BUILD_IMAGE=docker.io/library/rust:1.95-bookworm

# hadolint ignore=DL3006
FROM ${BUILD_IMAGE} AS build
WORKDIR /src
COPY . .
RUN cargo build --locked --profile dist --features kube --bin tenantd \
    && apt-get update \
    && scripts/packaging/image-files.sh target/dist/tenantd /out

# scripts/package.sh gives a folder in the place of this stage: `buildah build --build-context files=FOLDER`.
FROM scratch AS files
COPY --from=build /out /

FROM scratch
ARG VERSION
LABEL org.opencontainers.image.title="tenantd" \
      org.opencontainers.image.description="Serves many tenants' MCP servers from one machine and one public IP" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=files / /
COPY --from=files --chown=65532:65532 /data /data
USER 65532:65532
WORKDIR /data
# High ports, so that no capability is needed. The admin listener stays on the container's own loopback.
ENV TENANTD_TENANTS=/data/tenants.d \
    TENANTD_STATE=/data/state \
    TENANTD_CERTS=/data/certs \
    TENANTD_LISTEN=0.0.0.0:8443
EXPOSE 8000 8443
VOLUME ["/data"]
HEALTHCHECK --interval=15s --timeout=3s --start-period=10s CMD ["/usr/bin/tenantd", "healthcheck"]
ENTRYPOINT ["/usr/bin/tenantd"]
# One tenant (/app/server.zip or the vendor's variables: `run`, port 8000), else the folder (`serve`, port 8443).
CMD ["container"]
