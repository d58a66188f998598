# Release builds hand in the same tag with its digest: --build-arg BASE_IMAGE=python:3.13-slim-trixie@sha256:...
ARG BASE_IMAGE=python:3.13-slim-trixie

FROM ${BASE_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PIP_NO_CACHE_DIR=1
WORKDIR /build
# The lock also lists what development needs. Every wheel is checked against its hash here; the install below may
# look nowhere else and takes only what the service itself depends on.
COPY requirements.txt ./
RUN pip download --require-hashes --only-binary=:all: --dest /wheels -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY config/providers config/providers
COPY bridge bridge
RUN pip wheel --no-deps --no-index --find-links /wheels --wheel-dir /wheels . \
    && python -m venv --without-pip /opt/jobbridge \
    && pip --python /opt/jobbridge install --no-index --find-links /wheels jobbridge

FROM ${BASE_IMAGE}
ARG BASE_IMAGE
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="jobbridge" \
      org.opencontainers.image.description="Follows long jobs on hosted job and agent APIs and hands every event to Kafka and signed webhooks." \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"
ENV PATH=/opt/jobbridge/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
RUN python -m pip uninstall --yes --quiet --root-user-action=ignore pip \
    && install --directory --owner=10001 --group=10001 --mode=0750 /var/lib/jobbridge
COPY --from=build /opt/jobbridge /opt/jobbridge
COPY config/providers /opt/jobbridge/providers
USER 10001:10001
WORKDIR /var/lib/jobbridge
VOLUME /var/lib/jobbridge
EXPOSE 8080
STOPSIGNAL SIGTERM
# For those who run it without Kubernetes, which has probes of its own and ignores this.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "from http.client import HTTPConnection as C; c = C('127.0.0.1', 8080, timeout=4); c.request('GET', '/livez'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["jobbridge"]
CMD ["run", "--config", "/etc/jobbridge/jobbridge.yaml"]
