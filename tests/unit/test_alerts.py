"""docs/alerts.yaml: rules that Prometheus takes, about metrics that there are, that fire when they should."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml

from tests.fix_promtool import ROOT, Promtool
from zbackup.metrics import METRICS

RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((ROOT / "docs/alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}


def selectors(expression: Any) -> Iterator[tuple[str, list[str]]]:
    """Yield every metric of an expression, with the labels that it is chosen by."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression.name or "", [matcher.name for matcher in expression.matchers.matchers]
    for name in ("expr", "lhs", "rhs", "vector_selector"):
        if (below := getattr(expression, name, None)) is not None:
            yield from selectors(below)
    for below in getattr(expression, "args", ()):
        yield from selectors(below)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_rules_are_about_metrics_that_there_are(rule: dict[str, Any]) -> None:
    """
    A rule that names no metric, or one that zbackup does not write, or a label that it does not have, never fires.
    """
    found = list(selectors(promql_parser.parse(rule["expr"])))

    assert found
    for name, labels in found:
        assert name in METRICS.keys() | RECORDED
        assert set(labels) <= ({"archive", *METRICS[name].labels} if name in METRICS else {"archive"})


def test_prometheus_takes_the_rules(promtool: Promtool) -> None:
    ran = promtool("check", "rules", str(ROOT / "docs/alerts.yaml"))

    assert ran.returncode == 0, ran.stderr
    assert f"SUCCESS: {len(RULES)} rules found" in ran.stdout


def test_alerts_fire_when_they_should(promtool: Promtool) -> None:
    """
    tests/alerts.test.yaml and tests/alerts.weeks.test.yaml have cases for every alert: where it fires and where not.
    """
    paths = [ROOT / "tests" / name for name in ("alerts.test.yaml", "alerts.weeks.test.yaml")]
    groups = [group for path in paths for group in yaml.safe_load(path.read_text())["tests"]]
    cases = [case for group in groups for case in group.get("alert_rule_test", ())]
    firing = {case["alertname"] for case in cases if case["exp_alerts"]}
    silent = {case["alertname"] for case in cases if not case["exp_alerts"]}
    ran = promtool("test", "rules", *map(str, paths))

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert firing == silent == {rule["alert"] for rule in RULES if "alert" in rule}
