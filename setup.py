"""Packaging of debias-ranking: `pip install .` or, to work on it, `pip install -e .`"""

from pathlib import Path

from setuptools import find_packages, setup

# TensorFlow has a lower bound because pip otherwise falls back to 2.15 and Keras 2.
REQUIRES = [
    "tensorflow>=2.18",
    "keras>=3.13",
    "numpy>=1.26",
    "scipy>=1.11",
    "scikit-learn>=1.4",
    "threadpoolctl>=3",
    "pyarrow>=20",
    "typer>=0.12",
    "rich>=13",
    "matplotlib>=3.8",
    "jinja2>=3.1",
    "lazy_loader>=0.4",
    "tensorflow-ranking>=0.5.3",
]
EXTRAS = {
    "jax": ["jax>=0.4.30"],
    "onnx": ["onnx>=1.16", "tf2onnx>=1.16"],
    "baselines": ["implicit>=0.7.2"],
    "retrieval": ["faiss-cpu>=1.11", "onnxruntime>=1.18"],
    "trees": ["lightgbm>=4.3", "xgboost-cpu>=2.1"],
    "annoy": ["annoy>=1.17.3"],  # is compiled where it is installed
    "cluster": ["distributed>=2024.8"],
    "milvus": ["pymilvus>=3.0", "milvus-lite>=3.2"],  # the second is embedded
}
EXTRAS["serve"] = [
    *EXTRAS["retrieval"],
    "fastapi>=0.115",
    "fastapi-offline>=1.7",  # the page of the interface, without a content network
    "uvicorn>=0.54",
    "uvloop>=0.20; sys_platform != 'win32'",
    "httptools>=0.6",
    "prometheus-client>=0.20",
    "msgspec>=0.19",
]
EXTRAS["peers"] = [  # in an environment of their own: CLAX wants an older JAX
    *EXTRAS["baselines"],
    "clax-models>=0.1.1",
    "jax==0.7.2",
    "keras-rs>=0.4",
    "ranx>=0.3.21",
    "rax>=0.4",
    "tensorflow-recommenders>=0.7.7",
    "torch>=2.6",
    "torch-rechub>=0.9",
]
EXTRAS["docs"] = [
    "mkdocs>=1.6,<2",
    "mkdocs-material>=9.5",
    "mkdocstrings[python]>=0.26",
]
EXTRAS["test"] = [
    *EXTRAS["jax"],
    *EXTRAS["onnx"],
    *EXTRAS["baselines"],
    *EXTRAS["serve"],
    *EXTRAS["trees"],
    *EXTRAS["cluster"],
    *EXTRAS["docs"],
    "axe-core-python>=0.1",
    "codespell>=2.3",
    "nbmake>=1.5",
    *EXTRAS["milvus"],
    "httpx>=0.27",
    "aiohttp>=3.9",
    "schemathesis>=4",
    "pytest>=8",
    "pytest-xdist>=3.5",
    "hypothesis>=6.100",
    "pandas>=2.2",
    "polars>=1",
    "duckdb>=1.1",
    "moto[s3]>=5",  # an S3 server on loopback, with the next one
    "flask-cors>=5",
    "gcp-storage-emulator>=2026.7",  # a store of Google's kind on loopback
    "psutil>=5.9",
    "ruff>=0.6",
    "mypy>=1.11",
]

setup(
    name="debias-ranking",
    version="0.2.0",
    description="Learn what users find relevant from clicks biased by presentation",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    author="The debias authors",
    keywords=[
        *("learning to rank", "click models", "position bias", "counterfactual"),
        *("recommender systems", "two-tower", "Keras", "TensorFlow"),
    ],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)),
        "Topic :: Internet :: WWW/HTTP :: Indexing/Search",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["debias*", "simulators*", "benchmarks*"]),
    package_data={
        "debias": [
            "py.typed",
            "*.pyi",
            "*/*.pyi",
            "*/templates/*.html",
            "serve/page.html",
        ],
        "simulators": ["py.typed", "*.pyi"],
        "benchmarks": ["results/*.jsonl", "*.md"],
    },
    entry_points={"console_scripts": ["debias = debias.__main__:app"]},
    install_requires=REQUIRES,
    extras_require=EXTRAS,
)
