"""Synthetic pages: the same for one seed, all different, in the layouts that MTEB reads."""

import io

import mteb
import numpy as np
import pytest
from PIL import Image

from raylib.errors import UserError
from raylib.tasks import synthetic


def test_pages_are_distinct_and_follow_from_the_seed():
    first, again, other = (synthetic.draw_pages(20, (48, 64), seed) for seed in (3, 3, 4))

    assert first == again and first != other
    assert len({page.png for page in first}) == 20 and len({page.text for page in first}) == 20
    assert synthetic.draw_pages(5, (48, 64), 3) == first[:5], "more pages do not change the ones before"


def test_a_page_has_its_size_text_and_colour():
    (page,) = synthetic.draw_pages(1, (827, 1170))
    image = Image.open(io.BytesIO(page.png))

    assert image.size == (827, 1170) and image.mode == "RGB"
    assert len(page.text.split()) > 200
    pixels = np.asarray(image).astype(int)
    assert (pixels[100:800].max(axis=2) < 60).sum() > 5000, "black print"
    assert len(np.unique(pixels[:70].reshape(-1, 3), axis=0)) == 1, "the coloured band"


def test_examples_name_tasks_and_data_sets_that_mteb_has():
    for task, hub_path in synthetic.EXAMPLES.values():
        assert mteb.get_task(task).metadata.dataset["path"] == hub_path


def test_questions_are_words_of_their_page_in_each_language():
    (page,) = synthetic.draw_pages(1)
    words = page.text.split()[3:8]
    assert synthetic.question(page, "german") == f"Auf welcher Seite steht: {' '.join(words)}?"
    assert len({synthetic.question(page, language) for language in synthetic.OPENINGS}) == 6


@pytest.mark.parametrize(("pages", "queries"), [(1, 1), (4, 0), (4, 5)])
def test_counts_that_make_no_data_set(pages, queries, tmp_path):
    with pytest.raises(UserError, match=f"got {pages} pages and {queries} queries"):
        synthetic.write("v1", str(tmp_path / "x"), pages=pages, queries=queries)
    assert not (tmp_path / "x").exists()


def test_an_unknown_layout_writes_nothing(tmp_path):
    with pytest.raises(UserError, match=r"unknown layout 'v9'; expected one of v1, v2, v3, v3.1"):
        synthetic.write("v9", str(tmp_path / "x"))  # pyright: ignore[reportArgumentType]
    assert not (tmp_path / "x").exists()
