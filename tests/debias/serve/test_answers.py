"""Tests of debias.serve.answers: what is ranked has finite scores."""

import numpy as np
import pytest

from debias.engine.scoring import Scorer
from debias.retrieval.serving import versions
from debias.serve.answers import ranked
from debias.serve.schemas import RankRequest
from tests.debias.retrieval import worlds


def test_a_score_that_is_no_number_is_refused(tmp_path):
    worlds.publish(tmp_path / "root", tmp_path)
    version = versions.load(tmp_path / "root")
    ranker = Scorer(lambda x: np.where(x[..., 0] > 1, np.nan, x[..., 0]))
    asked = RankRequest(features=[[1.0], [2.0]])
    with pytest.raises(ValueError, match="gives item 1 no finite score"):
        ranked(version, ranker, asked)
    assert ranked(version, ranker, RankRequest(features=[[1.0]])).scores == [1.0]
