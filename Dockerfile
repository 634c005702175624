# One image for intake, workers, sweeper, web and migration; the command chooses. It holds no model and no bundle.
#
#   docker build .                  torch as TORCH_PIP_ARGS asks for it: empty, PyPI's build with CUDA; for CPUs alone, the index of the CPU-only builds
#   docker build --target gpu .     the same, refused where torch was built without CUDA, and given the GPUs by NVIDIA's container toolkit

FROM python:3.11-slim-bookworm AS build
ARG TORCH_PIP_ARGS=""
# Extras of pyproject.toml, such as engine,service,otel,faiss,milvus
ARG EXTRAS="engine,service"
# hnswlib is compiled: a compiler here, none in the final image.
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
# The build machine's own instruction set would not run everywhere.
ENV HNSWLIB_NO_NATIVE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /venv
WORKDIR /build
COPY constraints.txt ./
RUN /venv/bin/pip install -c constraints.txt ${TORCH_PIP_ARGS} torch
# Third-party packages before our own code, so that a change of the code does not install them again.
COPY pyproject.toml README.md LICENSE ./
RUN mkdir wherefrom && touch wherefrom/__init__.py \
    && /venv/bin/pip install -c constraints.txt ".[${EXTRAS}]" \
    && /venv/bin/pip uninstall --yes wherefrom
COPY wherefrom ./wherefrom
RUN /venv/bin/pip install --no-deps -c constraints.txt .

FROM python:3.11-slim-bookworm AS runtime
# libgomp: torch and hnswlib compute with several threads.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin wherefrom
COPY --from=build /venv /venv
WORKDIR /app
# These run from here and are in no wheel: docs/adr/0001-packaging.md.
COPY db ./db
COPY tasks ./tasks
COPY worker ./worker
COPY web ./web
ENV PATH=/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    HF_HUB_OFFLINE=1 \
    TRANSFORMERS_OFFLINE=1
# Volumes of the measuring and the build worker take their owner from here.
RUN mkdir /measured /parts && chown wherefrom:wherefrom /measured /parts
RUN python -m compileall -q /app /venv/lib/python3.11/site-packages/wherefrom
USER wherefrom
EXPOSE 8077
CMD ["python", "-m", "worker", "--help"]

FROM runtime AS gpu
RUN python -c "import sys, torch; sys.exit(None if torch.version.cuda else 'torch was built without CUDA: leave GPU_TORCH_PIP_ARGS empty, or name an index of CUDA builds')"
# What the toolkit mounts into the container: the driver's libraries and nvidia-smi.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

# The last stage is the one that is built unasked.
FROM runtime
