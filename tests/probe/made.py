"""Hidden states and labels made for tests of probes, with what is planted in them known."""

import hashlib

import numpy as np

from raylib.probe.data import ProbeData
from raylib.store.hidden_states import StateTable, open_states, write_part
from raylib.store.representations import Representation

LAYERS = (0, 4, 8)


def probe_data(y, images=None, **columns):
    """ProbeData of labels y; images: a name a row, by default each its own."""
    ids = [f"q{at}" for at in range(len(y))]
    images = [f"image of {id}" for id in ids] if images is None else list(images)
    return ProbeData(ids, np.asarray(y, np.int8), images, "image_id", columns, np.arange(len(ids)), {})


def planted(rows=600, images=300, width=48, seed=0):
    """(data, layer → x float32 [rows, width]): label 1 moves the vectors of layer 4 along one direction, and nothing
    else tells of labels. Two rows an image, with labels of their own."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, rows)
    names = [f"{at % images}.jpg" for at in range(rows)]
    sources = [f"set {at % images % 12}" for at in range(rows)]
    categories = ["objects" if at % 3 else "numbers" for at in range(rows)]
    layers = {layer: rng.standard_normal((rows, width)) for layer in LAYERS}
    direction = rng.standard_normal(width)
    layers[4] += 3.0 * np.outer(y, direction / np.linalg.norm(direction))
    layers = {layer: (2 + 5 * x).astype(np.float32) for layer, x in layers.items()}
    return probe_data(y, names, source=sources, category=categories), layers


def leaking(images=300, per_image=3, width=320, seed=0):
    """(data, x): every vector is its image's fingerprint with a little noise; the label is a bit of a digest of the
    image's name, so that nothing learnt of one image tells of another."""
    rng = np.random.default_rng(seed)
    names = [f"{at % images}.jpg" for at in range(images * per_image)]
    y = [hashlib.sha256(name.encode()).digest()[0] & 1 for name in names]
    prints = rng.standard_normal((images, width))
    x = prints[[at % images for at in range(len(names))]] + 0.1 * rng.standard_normal((len(names), width))
    return probe_data(y, names), x.astype(np.float32)


def write_states(folder, ids, states, **texts):
    """A part file of these rows; states: Representation → float32 [n, D]. Gives the opened states."""
    n = len(ids)
    table = StateTable(
        question_ids=list(ids),
        texts={"image_id": [""] * n, "question": ["?"] * n, **texts},
        states={one: np.asarray(x, np.float32) for one, x in states.items()},
        image_spans=np.zeros((n, 2), np.int64),
        vision_positions=np.zeros(n, np.int64),
        query_positions=np.zeros(n, np.int64),
        image_tokens=np.zeros(n, np.int64),
        about={"model_name": "org/tiny"},
    )
    path = str(folder / "made_part_001.h5")
    write_part(table, path, "hdf5")
    return open_states(path)


QUERY = Representation("query_token", 4)
