import unicodedata

import pandas as pd
import pytest

from dssm_core.features.trigrams import LONGEST, spelled, trigrams, words


def test_the_paper_s_example():
    """Huang et al. 2013, 3.2: good is #good#, and that is #go, goo, ood, od#."""
    row, codes = trigrams(pd.Series(["good"]))
    assert spelled(codes) == ["#go", "goo", "ood", "od#"]
    assert row.tolist() == [0] * 4


def test_every_word_of_every_text_in_order():
    row, codes = trigrams(pd.Series(["Ab a", None, "", "É-a a!", 7], index=[9, 8, 7, 6, 5]))
    assert list(zip(row.tolist(), spelled(codes), strict=True)) == [
        *[(0, "#ab"), (0, "ab#"), (0, "#a#")],
        *[(3, "#é#"), (3, "#a#"), (3, "#a#")],  # twice in the text, twice here
        (4, "#7#"),
    ]


def test_no_text_has_no_trigrams():
    row, codes = trigrams(pd.Series([None, "..."], dtype=object))
    assert len(row) == len(codes) == 0


def test_a_word_without_end_is_cut():
    assert len(trigrams(pd.Series(["x" * 10_000]))[1]) == LONGEST


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("हिन्दी की किताब", ["हिन्दी", "की", "किताब"]),
        ("का", ["का"]),
        ("தமிழ் செய்தி", ["தமிழ்", "செய்தி"]),
        ("తెలుగు వార్తలు", ["తెలుగు", "వార్తలు"]),
        ("বাংলা খবর", ["বাংলা", "খবর"]),
        ("ข่าว ที่นี่", ["ข่าว", "ที่นี่"]),
        ("شُكْرًا می‌روم", ["شُكْرًا", "می‌روم"]),  # vowel marks; a zero-width non-joiner
        ("cafe\u0301 café", ["café", "café"]),  # decomposed and composed
        ("don't stop-it_now 3.5", ["don", "t", "stop", "it_now", "3", "5"]),
        ("\u0301 ️ —", []),  # a mark alone is no word
    ],
)
def test_marks_belong_to_their_word(text, expected):
    assert words(pd.Series([text])).tolist() == [
        unicodedata.normalize("NFC", word) for word in expected
    ]


def test_vowel_signs_tell_words_apart():
    one, other = (spelled(trigrams(pd.Series([text]))[1]) for text in ("की", "का"))
    assert (one, other) == (["#की", "की#"], ["#का", "का#"])
