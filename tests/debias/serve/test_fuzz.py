"""The service under requests that its own description suggests, and worse."""

import os

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.generation import GenerationMode

from debias.engine.scoring import Scorer
from debias.serve.app import service
from tests.debias.retrieval import worlds
from tests.debias.serve.running import running

EXAMPLES = int(os.environ.get("DEBIAS_FUZZ", "15"))  # requests of each kind


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    worlds.publish(folder / "root", folder)
    ranker = Scorer(lambda features: features.sum(axis=-1), ("price",))
    # A minute: what is slow here is the machine, and 503 would say so.
    app = service(folder / "root", ranker, seconds=60.0)
    with running(app) as client:
        yield f"{client.base_url}/openapi.json"


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.name)
@pytest.mark.parametrize("path", ["/retrieve", "/rank", "/recommend", "/explain"])
def test_no_request_is_an_internal_error(url, path, mode):
    operation = schemathesis.openapi.from_url(url)[path]["POST"]
    answered = set()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case):
        answered.add(case.call().status_code)
        assert max(answered) < 500, case.as_curl_command()

    ask()
    # What /rank is asked has hardly ever the features of the ranker.
    good = mode is GenerationMode.POSITIVE and path != "/rank"
    assert (200 if good else 422) in answered
