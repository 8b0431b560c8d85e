"""Prometheus' text format and Fabric's logging specification, for whatever is put into them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from sovchain.ledger.operations.logspec import LogLevels, LogSpecError
from sovchain.ledger.operations.metrics import Counter, exposition


@given(st.text(max_size=20), st.text(max_size=5))
def test_label_values_of_any_kind_are_read_back(value: str, other: str) -> None:
    counter = Counter("name", "help", ("one", "two"))
    counter.add(value, other)
    (family,) = text_string_to_metric_families(exposition([counter]).decode())
    (sample,) = family.samples
    assert (sample.labels, sample.value) == ({"one": value, "two": other}, 1.0)


@given(st.text(alphabet="adebginowrn.,=:_- x", max_size=30))
def test_a_specification_is_refused_or_its_normal_form_means_the_same(spec: str) -> None:
    levels = LogLevels()
    try:
        levels.activate(spec)
    except LogSpecError:
        assert levels.spec == "info", "what is refused changes nothing"
        return
    again = LogLevels(levels.spec)
    assert again.spec == levels.spec
    for name in ("", "a", "a.b", "ab.c.d"):
        assert again.level(name) == levels.level(name)
