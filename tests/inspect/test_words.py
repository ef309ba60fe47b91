"""Tokens to words; the tokens are those that real tokenizers give."""

import pytest

from raylib.inspect.words import Word, words_of

PADDED = ["<bos>", "Q", "u", "ery", ":", " S", "imple", " object", "?", "<pad>", "<pad>"]


def test_parts_of_a_word_are_one_and_what_the_model_adds_is_special():
    assert words_of(PADDED, "Simple object?", "Query: ") == [
        Word("<bos>", (0,), True),
        Word("Query:", (1, 2, 3, 4), True),
        Word("Simple", (5, 6)),
        Word("object", (7,)),
        Word("?", (8,)),
        Word("<pad>", (9, 10), True),
    ]


@pytest.mark.parametrize(
    ("tokens", "text", "texts"),
    [
        (["天", "気", "は"], "天気は", ["天", "気", "は"]),  # written without spaces: every token stays alone
        ([" na", "�", "�", "ve", " idea"], "naïve idea", ["na��ve", "idea"]),  # a letter of two bytes
        (["Query", ":", " Query", ":"], "Query:", ["Query:", "Query", ":"]),  # only the first is the prompt
        (["red", "green"], "red green", ["red", "green"]),  # these do not say where a word begins
        (["gre", "en"], "green", ["green"]),
        (["[CLS]", "what", " is", "[SEP]"], "what is", ["[CLS]", "what", "is", "[SEP]"]),
    ],
)
def test_other_texts(tokens, text, texts):
    assert [word.text for word in words_of(tokens, text, "Query: ")] == texts


def test_every_token_is_in_one_word():
    places = [place for word in words_of(PADDED, "Simple object?", "Query: ") for place in word.tokens]
    assert places == list(range(len(PADDED)))
