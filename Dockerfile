# The command line and the service: docker build -t debias .
#   docker run -v "$PWD":/data debias train /data/log.parquet -o /data/trained
#   docker run -p 8000:8000 -v "$PWD":/data debias serve /data/published --host 0.0.0.0
FROM python:3.12-slim

WORKDIR /src
COPY setup.py pyproject.toml README.md LICENSE ./
COPY debias debias
COPY simulators simulators
COPY benchmarks benchmarks
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".[serve,onnx]" && rm -rf /src

RUN useradd --create-home --uid 1000 debias
USER 1000
WORKDIR /data
EXPOSE 8000
ENTRYPOINT ["debias"]
CMD ["--help"]
