"""The explorer page in a real browser, as a person uses it. Every test ends with a look at what the browser complained
of and where it asked: nowhere but here."""

import re
import shutil
from contextlib import contextmanager

import pytest

import raylib
from tests.inspect import made
from tests.serve import page_server
from tests.serve.page_server import DENSE, NOTE, RETRIEVER, UNTRAINED, application, running

playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium: install it to drive the explorer page")

QUESTION, ANSWER = "parse source into node", "ast.parse"


@pytest.fixture(scope="module")
def served(private_caches):
    return page_server.card_models()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def address(served):
    with running(application(served, busy=["asked when busy"])) as found:
        yield found


@pytest.fixture
def page(browser, address):
    # The test reads the heat map off its canvas, which the browser gives advice about.
    with opened(browser, address, ["willReadFrequently"]) as found:
        yield found


@contextmanager
def opened(browser, address, expected=(), **settings):
    """A new page. expected: what the console may say, as parts of its messages."""
    context = browser.new_context(base_url=address, **{"viewport": {"width": 1200, "height": 800}, **settings})
    context.set_default_timeout(20_000)
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    yield page
    context.close()
    assert [text for text in said if not any(part in text for part in expected)] == []
    foreign = [url for url in asked if not url.startswith((f"{address}/", f"blob:{address}/", "data:image/webp"))]
    assert foreign == [] and asked


def ask(page, question=QUESTION):
    page.get_by_role("searchbox", name="Question").fill(question)
    page.keyboard.press("Enter")
    expect(page.locator(".card").first).to_be_visible()


def pixels(page):
    """The heat map as it is drawn: [rows × columns × 4]."""
    return page.evaluate(
        "(() => { const c = document.querySelector('.heat');"
        " return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]; })()"
    )


def test_a_question_finds_pages_and_a_link_finds_them_again(page, served, address):
    page.goto("/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Find a page, and see why")
    ask(page)
    cards = page.locator(".card")
    expect(cards).to_have_count(12)
    expect(cards.first).to_have_attribute("aria-label", re.compile(rf"^Rank 1, {re.escape(ANSWER)}, score \d"))
    scores = [float(score) for score in page.locator(".card .score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    expect(page.locator("#live")).to_contain_text("12 pages found")
    image = cards.first.locator("img")
    expect(image).not_to_have_class(re.compile("waiting"))
    assert image.evaluate("image => image.naturalWidth") == 128
    page.get_by_label("Pages").first.select_option("5")
    expect(cards).to_have_count(5)
    page.reload()
    expect(cards).to_have_count(5)
    expect(page.get_by_role("searchbox")).to_have_value(QUESTION)


def test_the_heat_map_of_a_word(page):
    page.goto("/")
    ask(page)
    page.locator(".card").first.click()
    words = page.get_by_role("radio")
    expect(words.first).to_have_attribute("aria-checked", "true")
    own = page.locator(".sentence .word")
    assert own.all_inner_texts() == ["parse", "source", "into", "node"]
    expect(page.locator(".readout")).to_contain_text("All words")
    everything = pixels(page)
    assert len(everything) == 8 * 8 * 4 and max(everything[3::4]) > 150

    own.nth(2).hover()
    expect(page.locator(".readout")).to_contain_text("“into” adds")
    hovered = pixels(page)
    assert hovered != everything
    page.mouse.move(5, 5)
    expect(page.locator(".readout")).to_contain_text("All words")
    own.nth(2).click()
    expect(own.nth(2)).to_have_attribute("aria-checked", "true")
    page.mouse.move(5, 5)
    assert pixels(page) == hovered

    slider = page.get_by_role("slider")
    slider.fill("20")
    assert page.locator(".heat").evaluate("canvas => canvas.style.opacity") == "0.2"
    box = page.locator(".paper").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 16, box["y"] + box["height"] / 16)
    expect(page.locator(".readout")).to_contain_text("Here “into”")

    page.reload()
    expect(own.nth(2)).to_have_attribute("aria-checked", "true")
    assert slider.input_value() == "20"


def test_a_dense_model_says_why_there_is_no_heat_map(page):
    page.goto(f"/#/search?q=command&model={DENSE}")
    page.locator(".card").first.click()
    expect(page.locator("#viewer .note")).to_have_text("No heat map: a dense model has one vector for a whole page.")


def test_everything_by_keyboard(page):
    page.goto("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type(QUESTION)
    page.keyboard.press("Enter")
    cards = page.locator(".card")
    expect(cards).to_have_count(12)
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.card')"):
            break
    expect(cards.first).to_be_focused()
    assert cards.first.evaluate("card => getComputedStyle(card).outlineStyle") == "solid"
    page.keyboard.press("ArrowRight")
    expect(cards.nth(1)).to_be_focused()
    page.keyboard.press("ArrowDown")
    row = page.evaluate("getComputedStyle(document.querySelector('.grid')).gridTemplateColumns.split(' ').length")
    expect(cards.nth(1 + row)).to_be_focused()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    radios = page.get_by_role("radio")
    expect(radios.first).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(radios.nth(1)).to_have_attribute("aria-checked", "true")
    expect(page.locator(".readout")).to_contain_text("“parse” adds")
    page.keyboard.press("0")
    expect(radios.first).to_have_attribute("aria-checked", "true")
    title = page.locator("#viewer-title")
    expect(title).to_have_text(ANSWER)
    page.keyboard.press("j")
    expect(title).not_to_have_text(ANSWER)
    second = title.inner_text()
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()
    expect(cards.nth(1)).to_be_focused()
    assert second in cards.nth(1).get_attribute("aria-label")
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("?")
    expect(page.locator("#help")).to_be_hidden()
    cards.first.focus()
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()


def test_two_models_side_by_side(page, served):
    page.goto("/#/compare")
    page.get_by_label("Left").select_option(RETRIEVER)
    page.get_by_label("Right").select_option(UNTRAINED)
    page.get_by_role("searchbox").fill(QUESTION)
    page.keyboard.press("Enter")
    left, right = page.locator(".side").nth(0).locator(".hit"), page.locator(".side").nth(1).locator(".hit")
    expect(left).to_have_count(12)
    expect(right).to_have_count(12)
    ids = [[hit.get_attribute("data-id") for hit in side.all()] for side in (left, right)]
    assert ids[0] != ids[1] and sorted(ids[0]) == sorted(ids[1])
    moves = [ids[0].index(one) - place for place, one in enumerate(ids[1])]
    signs = ["=" if by == 0 else f"▲ {by}" if by > 0 else f"▼ {-by}" for by in moves]
    assert page.locator(".side").nth(1).locator(".moved").all_inner_texts() == signs
    there = [ids[1].index(one) + 1 for one in ids[0]]
    places = ["=" if rank == place else f"→ {rank}" for place, rank in enumerate(there, 1)]
    assert page.locator(".side").nth(0).locator(".moved").all_inner_texts() == places
    expect(page.locator(".lines-between path.up")).to_have_count(sum(by > 0 for by in moves))
    expect(page.locator(".lines-between path")).to_have_count(12)
    expect(page.locator(".count").first).to_contain_text(
        f"12 pages are in both rankings, {moves.count(0)} of them in the same place"
    )
    left.first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".side").nth(1).locator(".hit:focus")).to_have_attribute("data-id", ids[0][0])
    expect(page.locator(".lines-between path.lit")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(page.locator("#viewer")).to_contain_text(UNTRAINED)
    expect(page.locator("#viewer")).to_contain_text("rank 1 with the other model")


def test_the_worst_queries_lead_to_a_search(browser, served, tmp_path):
    made.write_data(str(tmp_path / "data"))
    model = "tests.inspect.made:colours"
    done = raylib.evaluate(
        [model],
        tasks=[made.TASK],
        data_root=str(tmp_path / "data"),
        output_folder=str(tmp_path / "results"),
        local=True,
        quiet=True,
    )
    assert done.ok
    runs = str(tmp_path / "results")
    with running(application(served, runs)) as address, opened(browser, address) as page:
        page.goto("/#/worst")
        queries = page.locator(".query")
        expect(queries).to_have_count(3)
        expect(queries.first.locator(".value")).to_contain_text("54.4")
        expected, came = queries.first.locator("section").all()
        assert [text.strip() for text in expected.locator(".line b").all_inner_texts()] == ["Rank 3", "Rank 4"]
        expect(came.locator(".line b")).to_have_text(["Rank 1", "Rank 2", "Rank 3"])
        assert came.locator("img").first.evaluate("image => image.naturalWidth") == 60
        expect(queries.nth(1).locator(".question")).to_have_text(made.QUERIES["3"])  # markup that stays a text
        page.get_by_label("Measure").select_option("recall_at_1")
        expect(page.locator("dt").first).to_have_text("Mean Recall@1")
        page.get_by_role("link", name="red green").click()
        expect(page.get_by_role("searchbox")).to_have_value("red green")
        expect(page.locator(".card")).to_have_count(12)


def test_an_image_asks(page, served):
    page.goto("/")
    document = next(iter(served[RETRIEVER].corpus._documents.values()))
    page.locator("input[type=file]").set_input_files(
        {"name": "card.png", "mimeType": "image/png", "buffer": document.content.image}
    )
    expect(page.locator(".card").first).to_have_attribute("data-id", document.id)
    expect(page.locator(".chip")).to_contain_text("card.png")
    page.reload()
    expect(page.locator(".message")).to_contain_text("Choose the image again")
    page.locator("input[type=file]").set_input_files({"name": "a.txt", "mimeType": "text/plain", "buffer": b"no"})
    expect(page.get_by_role("alert")).to_contain_text("PNG, JPEG or WebP")


def test_filters(page):
    page.goto("/")
    page.get_by_label("Only pages with").fill("package = argparse")
    ask(page)
    assert all("package argparse" in text for text in page.locator(".card .facts").all_inner_texts())
    page.get_by_label("Only pages with").fill("package argparse")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("is no filter")
    page.get_by_label("Only pages with").fill("package = nothing")
    page.keyboard.press("Enter")
    expect(page.locator(".message")).to_contain_text("No page fits")


def test_the_corpus_is_browsed(browser, served):
    embedder = served[RETRIEVER].embedder
    documents = [*served[RETRIEVER].corpus._documents.values(), NOTE]
    more = [page_server.Document(f"more/{n:02}", documents[0].content) for n in range(20)]
    corpus = page_server.MemoryCorpus(embedder, [*documents, *more])
    with (
        running(application({RETRIEVER: page_server.Served(RETRIEVER, embedder, corpus)})) as address,
        opened(browser, address) as page,
    ):
        page.goto("/#/browse")
        expect(page.locator(".card")).to_have_count(24)
        page.get_by_role("button", name="Next").click()
        expect(page.locator(".card")).to_have_count(9)
        note = page.locator(f'.card[data-id="{NOTE.id}"]')
        expect(note).to_contain_text("<b>words</b>")
        note.click()
        expect(page.locator(".paper")).to_contain_text("only <b>words</b>")
        page.keyboard.press("Escape")
        page.goto("/#/compare")
        expect(page.locator(".message")).to_contain_text("Two models are needed")
        page.goto("/#/worst")
        expect(page.locator(".message")).to_contain_text("without a folder of evaluation runs")


def test_on_a_phone_nothing_is_wider_than_the_screen(browser, address):
    size = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    with opened(browser, address, **size) as page:
        for place in ("search", f"search?q={QUESTION}", f"compare?q={QUESTION}", "browse", "worst"):
            page.goto(f"/#/{place}")
            page.wait_for_load_state("networkidle")
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, place
        page.goto(f"/#/search?q={QUESTION}")
        page.locator(".card").first.tap()
        word = page.locator(".sentence .word").nth(2)
        word.tap()
        expect(page.locator(".readout")).to_contain_text("“into” adds")
        paper, panel = page.locator(".paper").bounding_box(), page.locator(".panel").bounding_box()
        assert paper["width"] > 250 and paper["y"] + paper["height"] <= panel["y"] + 1
        page.get_by_role("button", name="Close", exact=True).tap()
        expect(page.locator("#viewer")).to_be_hidden()


def test_a_token_is_asked_for_and_kept_for_this_tab(browser, served):
    secret = "a-secret-of-some-length"
    refusals = ["401 (Unauthorized)"]
    with running(application(served, token=secret)) as address, opened(browser, address, refusals) as page:
        page.goto(f"/#/search?q={QUESTION}")
        field = page.get_by_label("Token", exact=True)
        field.fill("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#token-why")).to_contain_text("did not accept")
        field.fill(secret)
        page.keyboard.press("Enter")
        expect(page.locator(".card")).to_have_count(12)
        expect(page.locator(".card img").first).not_to_have_class(re.compile("waiting"))
        page.reload()
        expect(page.locator(".card")).to_have_count(12)
        expect(page.locator("#token")).to_be_hidden()
        assert secret not in page.url and page.evaluate("localStorage.length") == 0
        page.evaluate("sessionStorage.clear()")
        page.reload()
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("alert")).to_contain_text("Nothing can be shown without a token")
        page.get_by_role("button", name="Try again").click()
        expect(field).to_be_visible()


def test_a_busy_server_is_asked_again(browser, address):
    with opened(browser, address, ["429 (Too Many Requests)"]) as page:
        page.goto("/#/search?q=asked when busy")
        expect(page.locator("#toast")).to_contain_text("Asking again in 1 s")
        expect(page.locator(".card")).to_have_count(12)
        expect(page.locator("#toast")).to_be_hidden()


def test_a_server_that_is_gone(browser, served):
    with opened_then_stopped(browser, served) as page:
        page.get_by_role("searchbox").fill("another question")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("cannot be reached")


@contextmanager
def opened_then_stopped(browser, served):
    with running(application(served)) as address:
        context = opened(browser, address, ["ERR_"])
        page = context.__enter__()
        page.goto("/")
        ask(page)
    yield page
    context.__exit__(None, None, None)
