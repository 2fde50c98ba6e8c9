# Nothing here knows an architecture: the base is a build argument, and requirements/service.lock has the hashes of every
# wheel there is. Any image with python3 (3.11 or newer) and its venv module will do, as long as both stages share it.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
# The dependencies first: this layer is built again only when a lock changes.
COPY requirements/build.lock requirements/service.lock requirements/
# /build has pip and what builds the wheel; /opt/uvs, which is all that is shipped, has neither. Wheels only: building a
# source archive would run code that no lock names.
RUN python3 -m venv /build \
 && /build/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements/build.lock \
 && python3 -m venv --without-pip /opt/uvs \
 && /build/bin/pip --python /opt/uvs/bin/python install --no-cache-dir --require-hashes --only-binary :all: \
      -r requirements/service.lock
COPY pyproject.toml README.md LICENSE ./
COPY prosody_lua prosody_lua
COPY synapse_module synapse_module
COPY wellknown wellknown
COPY uvs uvs
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheel . \
 && /build/bin/pip --python /opt/uvs/bin/python install --no-cache-dir --no-deps --no-index /wheel/*.whl

FROM ${PYTHON_IMAGE}
ARG VERSION=unreleased
ARG REVISION=unknown
LABEL org.opencontainers.image.title="uvs" \
      org.opencontainers.image.description="Proves who a Matrix user is, and what they may do, to anything that is not Matrix" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/uvs /opt/uvs
# The bytecode was written above; the service itself writes nothing anywhere. A container is reached from outside of it
# only where it listens on all of its addresses.
ENV PATH="/opt/uvs/bin:${PATH}" \
    PYTHONDONTWRITEBYTECODE=1 \
    UVS_LISTEN_ADDRESS=0.0.0.0
# By number, so that Kubernetes can see that it is not root.
USER 65532:65532
EXPOSE 3000
HEALTHCHECK --interval=30s --timeout=6s --start-period=10s CMD ["uvs", "health"]
ENTRYPOINT ["uvs"]
CMD ["serve"]
