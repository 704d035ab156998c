"""Settings of load: what is taken, and one clear line for what is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runtime.errors import SettingsError
from runtime.settings import load_settings
from scheduler.configuration import build_profiles
from scheduler.engine.plugins import built_in
from scheduler.load.answers import Query
from scheduler.load.breaker import Rules
from scheduler.load.queries import DEFAULT_QUERIES, NODE_LABELS
from scheduler.load.settings import LoadSettings
from scheduler.settings import ExtenderSettings

DOCS = Path(__file__).parents[3] / "docs" / "load.md"

URL = "load:\n  prometheus:\n    url: {}\n"


def read(tmp_path: Path, text: str, env: dict[str, str] | None = None) -> ExtenderSettings:
    """Read settings from a file."""
    path = tmp_path / "extender.yaml"
    path.write_text(text, encoding="utf-8")
    return load_settings(ExtenderSettings, path, env or {}, {})


def test_load_is_off_unless_it_is_asked_for(tmp_path: Path) -> None:
    """A cluster without metrics gets no failing questions."""
    assert read(tmp_path, "port: 1").load is None


def test_an_empty_section_asks_the_metrics_api(tmp_path: Path) -> None:
    """With all defaults."""
    load = read(tmp_path, "load: {}").load
    assert load == LoadSettings()
    assert load.prometheus is None
    assert load.metrics_api


def test_everything_can_be_set(tmp_path: Path) -> None:
    """In one file."""
    load = read(
        tmp_path,
        """
        load:
          prometheus:
            url: https://prometheus.monitoring:9090/prom/
            ca_file: /etc/ca.pem
            token_file: /var/run/token
            headers: {X-Scope-OrgID: team-a}
            timeout_seconds: 2
            max_answer_mib: 4
          metrics_api: false
          refresh_seconds: 5
          stale_seconds: 60
          weights: {cpu: 1, disk: 0}
          metrics:
            cpu: {query: "a by ($labels)", taken: "b", window_seconds: 60}
          node_labels: [machine]
          breaker: {failures: 2, first_pause_seconds: 1, last_pause_seconds: 9}
        """,
    ).load
    assert load is not None
    assert load.prometheus is not None
    assert load.prometheus.url == "https://prometheus.monitoring:9090/prom"
    assert load.asked == ("cpu",)
    assert load.queries() == {"cpu": Query("a by ($labels)", "b", 60.0)}
    assert load.breaker.as_rules() == Rules(2, 1.0, 9.0)
    assert load.remember_seconds == 120


def test_a_query_replaces_the_default_whole(tmp_path: Path) -> None:
    """Its time and window belong to it; the other metrics keep theirs."""
    load = read(tmp_path, URL.format("http://p") + "  metrics: {gpu: {query: x}}").load
    assert load is not None
    assert load.queries() == {**DEFAULT_QUERIES, "gpu": Query("x")}


@pytest.mark.parametrize(
    "url",
    ["http://p", "https://a.b.svc.cluster.local:9090", "http://[fd00::1]:9090", "http://1.2.3.4"],
)
def test_hosts_are_names_and_addresses(tmp_path: Path, url: str) -> None:
    """Of both kinds."""
    load = read(tmp_path, URL.format(f'"{url}"')).load
    assert load is not None
    assert load.prometheus is not None
    assert load.prometheus.url == url


def test_the_environment_says_where_prometheus_is(tmp_path: Path) -> None:
    """Without any file of ours."""
    load = read(tmp_path, "", {"GPUTOPO_LOAD__PROMETHEUS__URL": "http://p:9090"}).load
    assert load is not None
    assert load.prometheus is not None
    assert load.prometheus.url == "http://p:9090"


SECURE = URL.format("https://p")
MISTAKES = [
    ("load: {prometheus: {}}", "load.prometheus.url: is needed"),
    (URL.format("prometheus:9090"), "load.prometheus.url: want http://HOST:PORT"),
    (URL.format("ftp://p"), "load.prometheus.url: want http://HOST:PORT"),
    (URL.format("http://"), "load.prometheus.url: want http://HOST:PORT"),
    (URL.format("http://p:99999"), "load.prometheus.url: not a URL"),
    (URL.format("http://a..b"), "its host is neither"),
    (URL.format("http://" + "a" * 64), "its host is neither"),
    (URL.format("http://\u00e4:1"), "its host is neither"),
    (URL.format("http://[1::2::3]:1"), "load.prometheus.url: "),
    (URL.format("http://u:secret@p"), "credentials do not belong here"),
    (URL.format("http://p/api?x=1"), "want no ? and no #"),
    (URL.format("http://p") + "    ca_file: /ca", "need an https url"),
    (SECURE + "    token_file: /t\n    username: u\n    password_file: /p", "want one"),
    (SECURE + "    username: u", "username and password_file need each other"),
    (SECURE + "    password_file: /p", "username and password_file need each other"),
    (SECURE + "    key_file: /k", "key_file needs cert_file"),
    (SECURE + "    ca_file: /c\n    insecure_skip_verify: true", "want one of them"),
    (SECURE + "    headers: {'a b': c}", "load.prometheus.headers"),
    (SECURE + '    headers: {a: "x\\ny"}', "load.prometheus.headers.a"),
    (SECURE + "    username: 'a:b'\n    password_file: /p", "load.prometheus.username"),
    (SECURE + "    timeout_seconds: 0", "greater than 0"),
    (SECURE + "    tokenfile: /t", "there is no such setting"),
    ("load: {metrics_api: false}", "nobody to ask: give prometheus.url, or metrics_api: true"),
    ("load: {weights: {}}", "weights: all are 0"),
    ("load: {weights: {cpu: 0}}", "weights: all are 0"),
    ("load: {weights: {cpu: -1}}", "load.weights.cpu: "),
    ("load: {weights: {cpu: .inf}}", "load.weights.cpu: "),
    ("load: {weights: {fan: 1}}", "load.weights.fan"),
    ("load: {weights: {gpu: 1}}", "the metrics API has only cpu and memory"),
    ("load: {refresh_seconds: 60, stale_seconds: 30}", "no sample would live"),
    ("load: {node_labels: []}", "node_labels: none would name a node"),
    ("load: {node_labels: ['a-b']}", "load.node_labels.0: "),
    ("load: {metrics: {cpu: {query: ''}}}", "load.metrics.cpu.query: "),
    ("load: {breaker: {failures: 0}}", "load.breaker.failures: "),
    ("load: {breaker: {first_pause_seconds: 50, last_pause_seconds: 5}}", "is less than first"),
]


@pytest.mark.parametrize(("text", "problem"), MISTAKES)
def test_a_mistake_is_one_line_that_names_it(tmp_path: Path, text: str, problem: str) -> None:
    """With the file, and never with a secret."""
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text)
    (line,) = caught.value.problems
    assert problem in line
    assert "extender.yaml" in line
    assert "secret" not in line


def test_the_docs_show_the_default_queries() -> None:
    """As they are asked."""
    text = DOCS.read_text(encoding="utf-8")
    for metric, query in DEFAULT_QUERIES.items():
        assert query.value in text, metric
        assert query.taken in text, metric
    assert ", ".join(f"`{label}`" for label in NODE_LABELS) in text


@pytest.mark.parametrize("number", [0, 1])
def test_the_docs_examples_are_settings(tmp_path: Path, number: int) -> None:
    """As they stand: Prometheus is named, and a profile weighs load."""
    blocks = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    settings = read(tmp_path, blocks[number])
    assert settings.load is not None
    assert settings.load.prometheus is not None
    profiles = build_profiles(settings, built_in())
    assert any("load" in dict(profiles[name].weights) for name in settings.profiles)
