"""What the configuration says of XIDs."""

from __future__ import annotations

import pytest

from deviceplugin.config.health import (
    REFERENCE_IGNORED,
    malformed_words,
    read_numbers,
    xid_responses,
)
from deviceplugin.config.loading import read_config
from deviceplugin.config.model import Health
from deviceplugin.health.xids import Response

REFERENCE = {"policy": "reference"}


def responses(**keys: object) -> dict[int, Response]:
    """Return the responses that a health section asks for."""
    return xid_responses(Health.model_validate(keys))


def test_without_a_word_the_plugins_own_table_stands() -> None:
    """Nothing said, nothing overridden."""
    assert responses() == {}


def test_the_references_policy_ignores_six() -> None:
    """13, 31, 43, 45, 68 and 109 are passed over, every other XID is the GPU's end."""
    table = responses(**REFERENCE)
    ignored = {number for number, response in table.items() if response is Response.IGNORE}
    assert ignored == REFERENCE_IGNORED == {13, 31, 43, 45, 68, 109}
    assert table[94] is Response.UNHEALTHY


@pytest.mark.parametrize("words", [("all",), ("xids",), (" ALL ",)])
def test_everything_can_be_disabled_and_one_enabled_again(words: tuple[str, ...]) -> None:
    """With all disabled and 79 enabled, 79 still counts: the reference's promise is kept."""
    table = responses(disable=list(words), enable=["79"])
    assert table[79] is Response.UNHEALTHY
    assert table[48] is Response.IGNORE


def test_enabling_wins_over_disabling() -> None:
    """A number in both lists counts; enabling all leaves none ignored."""
    assert responses(disable=["48"], enable=["48"])[48] is Response.UNHEALTHY
    everything = responses(**REFERENCE, enable=["all"])
    assert Response.IGNORE not in everything.values()


def test_malformed_words_are_passed_over() -> None:
    """Blanks are trimmed, and a word that is no number spoils nothing."""
    numbers = read_numbers(("13", " 31 ", "x1", "", "-5"))
    assert numbers.numbers == {13, 31}
    assert numbers.malformed == ("x1", "-5")
    health = Health.model_validate({"disable": "13, x1", "enable": ["79", "y"]})
    assert malformed_words(health) == ("x1", "y")
    assert xid_responses(health)[79] is Response.UNHEALTHY


def test_the_variables_mean_the_same_as_the_keys() -> None:
    """DP_DISABLE_HEALTHCHECKS and its counterpart are the section's lists."""
    env = {"DP_DISABLE_HEALTHCHECKS": "all", "DP_ENABLE_HEALTHCHECKS": "79, 48"}
    by_variable = read_config(b"", "c", env).health
    by_file = read_config(b"health: {disable: all, enable: [79, 48]}", "c").health
    assert by_variable == by_file
    assert by_file.enable == ("79", "48")


def test_a_single_xid_has_the_last_word() -> None:
    """`xids` says what one number does, whatever else is said."""
    table = responses(**REFERENCE, disable=["94"], xids={94: "degrade"})
    assert table[94] is Response.DEGRADE
