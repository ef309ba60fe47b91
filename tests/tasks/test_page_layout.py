"""Laying out and drawing pages."""

import numpy as np
import pytest

from raylib.tasks import page_layout
from raylib.tasks.page_layout import Block, Style, draw, lay_out, parse_blocks, to_lines

WORDS = [f"word{n}" for n in range(100_000)]


def paragraph(start, count):
    return Block("text", " ".join(WORDS[start : start + count]))


def test_docstring_parts():
    docstring = """Say what this is
for.

Choices:
 - one thing
 - another
   thing

Example:

    x = 1
      y = 2

As in
>>> 1 + 1
2

a     1
bb    2
"""
    assert parse_blocks(docstring) == [
        Block("text", "Say what this is for."),
        Block("text", "Choices:"),
        Block("bullet", "one thing"),
        Block("bullet", "another thing"),
        Block("text", "Example:"),
        Block("code", "x = 1\n  y = 2"),
        Block("text", "As in"),
        Block("code", ">>> 1 + 1\n2"),
        Block("code", "a     1\nbb    2"),
    ]


@pytest.mark.parametrize("columns", [1, 2])
def test_documents_stay_whole_on_one_page_and_no_word_is_lost(columns):
    documents = [[Block("heading", f"Heading{n}"), paragraph(n * 200, 200)] for n in range(12)]

    pages, homes = lay_out("Title", documents, Style(columns=columns))

    assert len(pages) > 2 and homes == sorted(homes)
    for n, home in enumerate(homes):
        assert f"Heading{n}\n\n{documents[n][1].text}" in pages[home].text
    printed = " ".join(page.text for page in pages).split()
    assert sorted(word for word in printed if word.startswith("word")) == sorted(WORDS[:2400])


@pytest.mark.parametrize("columns", [1, 2])
def test_every_line_is_inside_its_column(columns):
    style = Style(columns=columns)
    blocks = [paragraph(0, 700), Block("text", "x" * 400), Block("bullet", "an item " * 40)]

    (page,), _ = lay_out("Title", [blocks], style)

    starts = {style.margin + n * (style.column_width + style.gutter) for n in range(columns)}
    assert {x for x, _, _ in page.lines} == starts
    for _, y, line in page.lines:
        width = page_layout.font_of(style.font_size(line.kind)).getlength(line.text)
        assert width <= style.column_width
        assert style.margin <= y and y + line.height <= page_layout.HEIGHT - style.margin


def test_a_document_longer_than_a_page_is_cut_at_its_end_and_only_there():
    pages, homes = lay_out("Title", [[paragraph(0, 50)], [paragraph(50, 5000)], [paragraph(6000, 20)]], Style())

    assert homes == [0, 1, 2] and len(pages) == 3
    kept = pages[1].text.split()[1:]
    assert kept == WORDS[50 : 50 + len(kept)] and 500 < len(kept) < 5000


def test_a_word_wider_than_the_column_and_long_code_lines_read_back_whole():
    style = Style(columns=2)
    word, code = "configuration." * 12, "value = " + "7" * 200

    (page,), _ = lay_out("Title", [[Block("text", word), Block("code", code)]], style)

    assert word in page.text and code in page.text
    assert sum(line.kind == "code" for _, _, line in page.lines) > 3


def test_a_heading_is_not_left_alone_at_the_foot():
    style = Style(columns=2)
    lines = to_lines([paragraph(0, 3000)], style)
    fits = (style.column_height - 60) // lines[0].height
    filler = Block("text", " ".join(line.text for line in lines[:fits]))

    (page,), _ = lay_out("T", [[filler], [Block("heading", "Last"), paragraph(4000, 30)]], style)

    (at,) = [index for index, (_, _, line) in enumerate(page.lines) if line.text == "Last"]
    assert page.lines[at][0] == page.lines[at + 1][0], "the heading stands over its text, in one column"


def test_drawing_puts_ink_where_the_lines_are_and_nowhere_else():
    blocks = [Block("heading", "Heading"), Block("bullet", "item"), Block("code", "x = 1"), Block("text", "Text")]
    (page,), _ = lay_out("Title", [blocks], Style(accent=(200, 0, 0)))

    image = draw(page)

    pixels = np.asarray(image).astype(int)
    assert image.mode == "RGB" and pixels.shape == (page_layout.HEIGHT, page_layout.WIDTH, 3)
    for _, y, line in page.lines:
        assert (pixels[y : y + line.height].min(axis=2) < 100).any(), line
    last = max(y + line.height for _, y, line in page.lines)
    assert (pixels[last + 10 : page_layout.HEIGHT - 45] == 255).all()
    heading = next(y for _, y, line in page.lines if line.kind == "heading")
    assert (pixels[heading : heading + 20, :, 0] - pixels[heading : heading + 20, :, 1]).max() > 150, "accent colour"
    code = next((x, y) for x, y, line in page.lines if line.kind == "code")
    assert tuple(pixels[code[1] + 6, code[0] + 400]) == (243, 243, 240), "code has its background"


def test_text_outside_latin_1_is_drawn():
    (page,), _ = lay_out("Title", [[Block("code", "π = 3 → ok"), Block("text", "naïve Ω")]], Style())

    assert draw(page).size == (page_layout.WIDTH, page_layout.HEIGHT)
    assert "π = 3 → ok" in page.text
