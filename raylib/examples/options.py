"""Which training data a job reads: flags that every job over examples has."""

from __future__ import annotations

from dataclasses import dataclass, field

from raylib import storage


@dataclass
class DataOptions:
    """What `raylib.examples.examples.read_examples` takes, under the same names."""

    data: list[str] = field(default_factory=list, metadata={"metavar": "PATH"})
    """Training data: JSONL of query, pos, negs; Parquet (MMEB's too); a data set's folder. Repeat the flag for more."""

    root: str = field(default=".", metadata={"metavar": "DIR"})
    """The folder, or the .zip, that image paths start from."""

    data_root: str | None = field(default=None, metadata={"metavar": "DIR"})
    """Where local copies of data sets are, for owner/name/split/doc_N.png and --hub-name. By default --root."""

    hub_name: str | None = field(default=None, metadata={"metavar": "OWNER/NAME"})
    """A data set of the hub, of which there is a local copy."""

    split: str | None = None
    """The split of data sets and folders that have several."""

    group_by: str = field(default="dataset", metadata={"metavar": "FIELD"})
    """The field that names an example's data set; without it, the file, folder or config does."""

    limit: int | None = None
    """Only the first N rows of the data."""

    def take_data(self) -> None:
        """Paths as the readers take them; one path may stand for a list of it."""
        data = [self.data] if isinstance(self.data, str) else self.data
        self.data = [storage.as_path(path) for path in data]
