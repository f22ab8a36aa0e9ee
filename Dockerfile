# One image for all roles: bridge, worker, cleaner, jobs, beat, Flower, and the commands for people.
#   docker build -t matyan-celery .
#   docker run --rm --read-only --tmpfs /tmp matyan-celery matyan-celery bridge
# Settings come from the environment (docs/reference/settings.md). Nothing is written outside /tmp.
ARG PYTHON_VERSION=3.13
# Of the cluster's release line (--build-arg FDB_VERSION=7.4.8 for example): the client library, and the Python package.
ARG FDB_VERSION=7.3.79

FROM foundationdb/foundationdb:${FDB_VERSION} AS fdb

FROM python:${PYTHON_VERSION}-slim-bookworm AS build
ARG FDB_VERSION
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/matyan-celery
WORKDIR /src
COPY LICENSE README.md constraints.txt pyproject.toml ./
COPY bridge ./bridge
COPY matyan_celery ./matyan_celery
COPY storage ./storage
COPY tasks ./tasks
# Compiled here, since nothing can be written where it runs.
RUN sed -i "s/^foundationdb==.*/foundationdb==${FDB_VERSION}/" constraints.txt \
    && /opt/matyan-celery/bin/pip install --compile --constraint constraints.txt '.[azure,gcs,otel]'

FROM python:${PYTHON_VERSION}-slim-bookworm AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="matyan-celery" \
      org.opencontainers.image.description="Matyan's Kafka workers as Celery tasks: exactly once, in order per run" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
# tini as process 1 passes SIGTERM on, also to commands without a handler of their own, and buries orphaned children.
# Not pinned: Debian takes old versions out of its archive, and then the build would fail.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 matyan \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin matyan
COPY --from=fdb /usr/lib/libfdb_c.so /usr/lib/libfdb_c.so
COPY --from=build /opt/matyan-celery /opt/matyan-celery
ENV PATH=/opt/matyan-celery/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# By number, so that Kubernetes can see that it is not root.
USER 10001:10001
# Empty and not writable: no .env is read by accident.
WORKDIR /srv
EXPOSE 9090 5555
# SIGTERM: the bridge drains, a worker ends its tasks (at most TASK_TIME_LIMIT_SECONDS) and takes no more. Celery's soft
# shutdown (REMAP_SIGTERM) stays off: it waits its whole time wherever a task runs, however soon that one is done.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as web; web.urlopen('http://127.0.0.1:' + os.environ.get('METRICS_PORT', '9090') + '/livez', timeout=4)"]
ENTRYPOINT ["/usr/bin/tini", "--"]
CMD ["matyan-celery", "--help"]
