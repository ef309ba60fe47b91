"""The settings of `raylib submit`, `raylib jobs` and `raylib stop`: jobs on a cluster that runs somewhere else."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from raylib.errors import UserError
from raylib.placement import name_list


@dataclass
class JobServer:
    """Where a cluster takes jobs."""

    address: str | None = field(default=None, metadata={"metavar": "URL"})
    """The job server of the cluster, http://HEAD:8265. By default RAY_API_SERVER_ADDRESS, else RAY_ADDRESS."""

    @property
    def url(self) -> str:
        """Raises UserError where none is known."""
        found = self.address or os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS")
        if not found:
            raise UserError("no cluster to ask; add --address http://HEAD:8265, or set RAY_API_SERVER_ADDRESS")
        if not found.startswith(("http://", "https://")):
            raise UserError(f"the job server is {found!r}; expected http://HEAD:8265, the address of the dashboard")
        return found


@dataclass
class SubmitConfig(JobServer):
    """Run a job on a cluster: raylib submit evaluate --address http://HEAD:8265 --config jobs/evaluate.yaml

    All other flags are the job's own, and are checked before anything is sent. The working directory travels along,
    without what .gitignore names and without data; results belong in a bucket or on a disk that all nodes share.
    """

    follow: bool = False
    """Show the job's output until it ends, and end with its exit status."""

    working_dir: str = field(default=".", metadata={"metavar": "DIR"})
    """What travels to the cluster; paths of the job are relative to it."""

    exclude: list[str] = field(default_factory=list, metadata={"metavar": "PATTERN"})
    """What of it stays here, as in a .gitignore, besides virtual environments, results and data."""

    env: list[str] = field(default_factory=list, metadata={"metavar": "NAME"})
    """Variables of this environment that the job gets. Whoever may see the dashboard sees them there: give nodes their
    credentials by their role or by a secret instead."""

    job_id: str | None = None
    """The job's name on the cluster. By default one is made up."""

    def __post_init__(self) -> None:
        self.exclude, self.env = name_list(self.exclude), name_list(self.env)


@dataclass
class JobsConfig(JobServer):
    """List the jobs of a cluster."""


@dataclass
class StopConfig(JobServer):
    """Stop a job of a cluster; what it stored is kept, and the same command goes on from it."""

    job_id: str = field(default="", metadata={"positional": True})
    """As `raylib jobs` names it."""

    def __post_init__(self) -> None:
        if not self.job_id:
            raise UserError("no job was named; add its id (see: raylib jobs)")
