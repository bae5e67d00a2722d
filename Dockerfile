# ocgate's container image. `docker build -t ocgate .` works as it is; setup/build-image also does
# where there is no registry. What the container needs to run: docs/docker.md.
#
#   packages ── the base and Debian packages, without what nothing needs ─┐
#      └─ python ── /opt/ocgate with the locked libraries ────────────────┼─> the image: only copies
#            └─ ocgate ── our modules and commands ───────────────────────┘
# Testing, for its ocserv 1.5.0: a stranger crashes a worker of those of Debian 12 and 13 (docs/security.md).
# BASE=docker.io/library/debian:trixie-slim builds as well.
ARG BASE=docker.io/library/debian:forky-slim

FROM ${BASE} AS packages
COPY setup/image/install-packages setup/image/packages.txt setup/image/unneeded.txt /setup/
RUN --mount=type=secret,id=apt-sources --mount=type=secret,id=apt-conf \
    sh /setup/install-packages /setup/packages.txt /setup/unneeded.txt

FROM packages AS python
COPY setup/image/install-ocgate requirements.lock /setup/
RUN --mount=type=secret,id=apt-sources --mount=type=secret,id=apt-conf \
    --mount=type=secret,id=pip-conf --mount=type=secret,id=certificates \
    sh /setup/install-ocgate packages /setup/requirements.lock

FROM python AS ocgate
COPY src/ocgate /setup/ocgate
COPY LICENSE /setup/
RUN sh /setup/install-ocgate ocgate /setup/ocgate /setup/LICENSE

# Not FROM the base: what is copied over a file leaves that file in the layer below.
FROM scratch
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
COPY --from=packages /tree/ /
COPY --from=python /opt/ocgate /opt/ocgate
COPY --from=ocgate /delta-ocgate/ /

# ocserv.conf, certificate, users and ocgate.toml; an empty one is filled at the first start.
VOLUME /etc/ocserv
EXPOSE 443/tcp 443/udp
# Not SIGRTMIN+3 or whatever a base may say: s6-svscan's handler of this one is the ordered stop.
STOPSIGNAL SIGTERM
# A start takes about two seconds; what is slower (a probe of IPv6, a name that does not resolve)
# has given up after 20. After a failure docker asks three times before it says unhealthy.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 CMD ["ocgate", "healthcheck"]
ENTRYPOINT ["ocgate"]
CMD ["run"]

ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=""
ARG BASE
# Of the packages, by setup/build-image: ocserv's version, and the day of Debian's archive they are from.
ARG OCSERV=unknown
ARG PACKAGES=unknown
LABEL org.opencontainers.image.title="ocgate" \
    org.opencontainers.image.description="A self-configuring OpenConnect VPN server whose clients cannot leak" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.source="${SOURCE}" \
    org.opencontainers.image.base.name="${BASE}" \
    ocgate.ocserv="${OCSERV}" \
    ocgate.packages="${PACKAGES}"
