"""A data set of four pages, a model whose vectors are their colours, and a reader of the page that comes out.

Pages are 60 × 40 pixels in 2 rows of 3 plain cells. A page's vectors are (0.5, 0, 0), for the "prompt", then the colour
of each cell as (red, green, blue) between 0 and 1. A query's vectors are those of its words: red is (1, 0, 0). So the
similarity of the word red and a cell is the cell's redness.
"""

from __future__ import annotations

import io
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from raylib.models.family import Family
from raylib.models.protocol import Encoder, ModelSpec, TokenGrid
from raylib.tasks.hub_layout import HubFolder
from raylib.types import Embeddings

TASK, HUB_PATH = "VidoreArxivQARetrieval", "mteb/arxivqa_test_subsampled_beir"

K, R, G, B, W = (0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
_WORDS = {"red": R, "green": G, "blue": B}
PAGES = {
    "1": [[R, G, B], [K, K, K]],
    "2": [[K, K, K], [K, K, (102, 0, 0)]],  # redness 0.4, less than the prompt's
    "3": [[K, G, K], [(204, 0, 0), K, K]],  # redness 0.8
    "4": [[W, W, W], [W, W, W]],
}
QUERIES = {"1": "red green", "2": "blue", "3": "<script>alert('red')</script><img src=x onerror=alert(1)>"}
QRELS = [("1", "2", 1), ("1", "3", 2), ("2", "1", 1), ("2", "2", 1), ("3", "3", 1)]


def page_of(cells: list[list[tuple[int, int, int]]]) -> Image.Image:
    return Image.fromarray(np.array(cells, dtype=np.uint8)).resize((60, 40), Image.Resampling.NEAREST)


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def write_data(root: str) -> None:
    """The data set, where the task looks for it under --data-root."""
    out = HubFolder(f"{root}/{HUB_PATH}")
    out.add("queries", {"query-id": [int(i) for i in QUERIES], "query": list(QUERIES.values())})
    out.add(
        "corpus", {"corpus-id": [int(i) for i in PAGES], "image": [png(page_of(cells)) for cells in PAGES.values()]}
    )
    query_ids, corpus_ids, scores = zip(*QRELS, strict=True)
    ids = {"query-id": [int(i) for i in query_ids], "corpus-id": [int(i) for i in corpus_ids]}
    out.add("qrels", {**ids, "score": list(scores)})
    out.finish("# Four pages")


class Colours(Encoder):
    """See the module. A word that is no colour is black."""

    similarity = "maxsim"
    modalities = frozenset({"text", "image"})

    def __init__(self, name: str, grids: bool = True) -> None:
        super().__init__(ModelSpec(name), Family("made", "", "late-interaction", ("text", "image")))
        self.grids = grids

    @property
    def identity(self):
        return {"made": "colours", "name": self.spec.name}

    def preprocess(self, batch, context):
        del context
        contents = np.empty(len(next(iter(batch.values()))), dtype=object)
        for i in range(len(contents)):
            if "image" in batch:
                pixels = np.asarray(batch["image"][i].convert("RGB"), dtype=np.float32)
                cells = pixels.reshape(2, 20, 3, 20, 3).mean(axis=(1, 3)).reshape(6, 3) / 255
                contents[i] = np.concatenate([np.float32([[0.5, 0, 0]]), cells])
            else:
                contents[i] = np.float32([_WORDS.get(word, K) for word in batch["text"][i].split()]) / 255
        return {"vectors": contents}

    def forward(self, tensors):
        return Embeddings.from_list(list(tensors["vectors"]))

    def token_grid(self, batch):
        grid = TokenGrid(np.arange(1, 7).reshape(2, 3)) if self.grids else None
        return [grid] * len(batch["image"])

    def token_texts(self, batch):
        return [text.split() for text in batch["text"]]


def colours() -> Colours:
    return Colours("tests.inspect.made:colours")


def gridless() -> Colours:
    return Colours("tests.inspect.made:gridless", grids=False)


class Node:
    """An element of a parsed page."""

    def __init__(self, tag: str, attributes: dict[str, str | None]) -> None:
        self.tag, self.attributes = tag, attributes
        self.children: list[Node | str] = []

    def all(self, name: str) -> list[Node]:
        """Every element below with this tag, or this class (".card")."""
        found = []
        for child in self.children:
            if isinstance(child, Node):
                hit = name[1:] in (child.attributes.get("class") or "").split() if name[0] == "." else child.tag == name
                found += [child] * hit + child.all(name)
        return found

    def one(self, name: str) -> Node:
        (found,) = self.all(name)
        return found

    @property
    def text(self) -> str:
        return " ".join("".join(c if isinstance(c, str) else f" {c.text} " for c in self.children).split())


_VOID = {"meta", "img", "input", "br", "link"}


class _Tree(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Node("", {})]

    def handle_starttag(self, tag, attrs):
        node = Node(tag, dict(attrs))
        self.open[-1].children.append(node)
        if tag not in _VOID:
            self.open.append(node)

    def handle_startendtag(self, tag, attrs):
        self.open[-1].children.append(Node(tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data):
        self.open[-1].children.append(data)


def parsed(html: str) -> Node:
    """The page as a tree; every element must be closed in order."""
    tree = _Tree()
    tree.feed(html)
    tree.close()
    assert len(tree.open) == 1
    return tree.open[0]
