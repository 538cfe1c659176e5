"""The region of errors in which W selects a shape, against W itself."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.studies.published_choice import at, candidates, placed, region
from benchmarks.studies.reproduction import EXCHANGED, RELEASED

from subarch import Architecture


@pytest.mark.parametrize("name", [RELEASED, EXCHANGED])
@pytest.mark.parametrize("reading", ["of the layers", "with embeddings"])
def test_a_shape_is_selected_exactly_if_all_others_are_as_much_worse_as_asked(name: str, reading: str) -> None:
    shapes, savings = candidates()
    saved, row = savings[reading], at(shapes, name)
    least = np.array(list(region(shapes, saved, name)["ratios"].values()))
    assert str(Architecture(*map(int, shapes[row]))).split("-")[0] == "4"
    others = np.arange(len(shapes)) != row
    for seed in range(20):
        errors = least * np.exp(np.random.default_rng(seed).uniform(0.001, 0.5, len(shapes)))
        errors[row] = 1.0
        errors = np.maximum(errors, 1e-6)
        assert np.argmax(saved / errors) == row
        worst = np.random.default_rng(seed).choice(np.flatnonzero(others & (saved > 0)))
        errors[worst] = 0.999 * least[worst]
        assert np.argmax(saved / errors) != row


def test_recorded_errors_are_those_of_the_table_where_the_places_meet() -> None:
    """12-1024-3072 lies on 6-384-1536, the whole MiniLM, and 4-1024-1024 on 2-384-512."""
    shapes, _ = candidates()
    errors = placed(shapes)
    assert errors[at(shapes, "12-16-1024-3072")] == errors.min()
    deeper = errors[at(shapes, "4-8-1024-1024")], errors[at(shapes, "2-8-1024-1024")]
    assert deeper[0] < deeper[1]
