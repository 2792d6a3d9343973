# syntax=docker/dockerfile:1
# The service: `docker build -t llm-blender .`, and see docs/deploying.md.

FROM python:3.12-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src ./src
RUN /opt/venv/bin/pip install -c constraints.txt '.[server]'

FROM python:3.12-slim
# llama.cpp, which runs the embedded models, is built with OpenMP.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --home-dir /data blend \
    && mkdir /app
COPY --from=build /opt/venv /opt/venv

# /data holds the answers, the votes and downloaded models; a blend.toml is looked for in /app.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    LLM_BLENDER_STORE=/data/blend.db
USER 10001
WORKDIR /app
VOLUME /data
EXPOSE 8000

HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=3)"]

# Its keys come from the environment variable LLM_BLENDER_KEYS; without one it does not start.
ENTRYPOINT ["blend", "serve", "--host", "0.0.0.0", "--port", "8000"]
