# syntax=docker/dockerfile:1
FROM python:3.13-slim AS build
# The kernels are C: the compiler stays in this part of the build.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir uv
WORKDIR /src
ENV UV_PROJECT_ENVIRONMENT=/opt/roundhouse UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
# The dependencies change seldom: a layer of their own.
COPY pyproject.toml uv.lock ./
RUN uv sync --locked --no-dev --no-install-project
COPY LICENSE README.md ./
COPY app app
COPY migrations migrations
RUN uv sync --locked --no-dev --no-editable

FROM python:3.13-slim
COPY --from=build /opt/roundhouse /opt/roundhouse
ENV PATH=/opt/roundhouse/bin:$PATH PYTHONUNBUFFERED=1 ROUNDHOUSE_HOME=/data ROUNDHOUSE_LOG_FORMAT=json
RUN install -d -o 10001 -g 10001 /data
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/livez', timeout=2)"]
CMD ["roundhouse", "serve", "--host", "0.0.0.0"]
