"""Jobs on a cluster that runs somewhere else, through its job server."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from ray.job_submission import JobStatus, JobSubmissionClient

from raylib.errors import ModelError, UserError
from raylib.submit_config import JobsConfig, JobServer, StopConfig, SubmitConfig

STAYS_HERE = (
    *(".git/", ".venv/", "venv/", "__pycache__/", "results/", "runs/", "demo-train/", "store/", "wandb/"),
    *("*.parquet", "*.h5", "*.hdf5", "*.npy", "*.npz", "*.pt", "*.bin", "*.tar", "*.zip"),
)
"""Of a working directory: environments, results, data and weights."""

_SECONDS_BETWEEN = 1.0
_SECONDS_FOR_AN_AGENT = 60.0


def run_submit(config: SubmitConfig, command: Sequence[str], arguments: Sequence[str]) -> int:
    """command: of one word or two; arguments: of the job, as they were given. Exit status: the job's where it is
    followed, else 0."""
    client = connect(config)
    job_id = send(client, config, [*command, *arguments])
    url = config.url.rstrip("/")
    print(f"job {job_id}  {url}/#/jobs/{job_id}")
    if not config.follow:
        print(f"follow it with its dashboard, or: ray job logs --follow {job_id} --address {url}")
        return 0
    try:
        asyncio.run(_show(client, job_id))
        return _ended(client, job_id)
    except KeyboardInterrupt:
        return _interrupted(client, job_id)


def run_jobs(config: JobsConfig) -> int:
    from rich.table import Table

    from raylib.terminal import console

    table = Table("job", "status", "started", "seconds", "command")
    for job in sorted(connect(config).list_jobs(), key=lambda job: job.start_time or 0):
        begun, ended = (job.start_time or 0) / 1000, (job.end_time or 0) / 1000
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(begun)) if begun else ""
        lasted = f"{(ended or time.time()) - begun:,.0f}" if begun else ""
        table.add_row(job.submission_id or job.job_id or "", str(job.status.value), started, lasted, job.entrypoint)
    console().print(table)
    return 0


def run_stop(config: StopConfig) -> int:
    client = connect(config)
    status = _status(client, config.job_id)
    if status.is_terminal():
        print(f"job {config.job_id} has ended already: {status.value}")
        return 0
    client.stop_job(config.job_id)
    print(f"job {config.job_id} is told to stop; what it stored is kept")
    return 0


def connect(config: JobServer) -> JobSubmissionClient:
    """Raises UserError where no job server answers."""
    url = config.url
    try:
        return JobSubmissionClient(url)
    except (ConnectionError, RuntimeError) as error:
        raise UserError(
            f"the job server at {url} does not answer ({_last_line(error)}). Is the cluster up, and is its dashboard "
            "reachable from here (ray dashboard cluster.yaml)? Where it asks for a token: RAY_AUTH_MODE=token"
        ) from error


def send(client: JobSubmissionClient, config: SubmitConfig, command: Sequence[str]) -> str:
    """The job's id. Raises UserError for a working directory that cannot travel and an id that is taken."""
    folder = os.path.abspath(config.working_dir)
    if not os.path.isdir(folder):
        raise UserError(f"--working-dir {config.working_dir} is no folder")
    unset = [name for name in config.env if name not in os.environ]
    if unset:
        raise UserError(f"--env names {', '.join(unset)}, which this environment does not have")
    environment: dict[str, Any] = {
        "working_dir": folder,
        "excludes": [*STAYS_HERE, *config.exclude],
        "env_vars": {"PYTHONUNBUFFERED": "1", **{name: os.environ[name] for name in config.env}},
    }
    try:
        return _when_there_is_an_agent(
            lambda: client.submit_job(
                entrypoint=shlex.join(["python", "-m", "raylib.cli", *command]),
                runtime_env=environment,
                submission_id=config.job_id,
            )
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the cluster did not take the job: {_last_line(error)}") from error


def _when_there_is_an_agent(submit: Callable[[], str]) -> str:
    """The job server answers before the agent that starts jobs is up, on a head that was just started."""
    import tenacity

    retried = tenacity.Retrying(
        retry=tenacity.retry_if_exception_message(match="(?s).*No available agent"),
        stop=tenacity.stop_after_delay(_SECONDS_FOR_AN_AGENT),
        wait=tenacity.wait_fixed(_SECONDS_BETWEEN),
        reraise=True,
    )
    return retried(submit)


def _last_line(error: BaseException) -> str:
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)


async def _show(client: JobSubmissionClient, job_id: str) -> None:
    async for text in client.tail_job_logs(job_id):
        sys.stdout.write(text)
        sys.stdout.flush()


def _status(client: JobSubmissionClient, job_id: str) -> JobStatus:
    try:
        return client.get_job_status(job_id)
    except RuntimeError as error:
        raise UserError(f"the cluster has no job {job_id}; see: raylib jobs") from error


def _ended(client: JobSubmissionClient, job_id: str) -> int:
    """Waits for the end, of which the log may come to know earlier. Raises ModelError where the job never ran."""
    while not _status(client, job_id).is_terminal():
        time.sleep(_SECONDS_BETWEEN)
    found = client.get_job_info(job_id)
    if found.status == JobStatus.SUCCEEDED:
        return 0
    if found.status == JobStatus.STOPPED:
        print(f"job {job_id} was stopped", file=sys.stderr)
        return 130
    if found.driver_exit_code:
        return found.driver_exit_code
    raise ModelError(f"job {job_id} failed: {found.message}")


def _interrupted(client: JobSubmissionClient, job_id: str, ask: Callable[[str], str] = input) -> int:
    """Ctrl-C: of the job, or only of looking on?"""
    answer = ""
    if sys.stdin.isatty():
        with suppress(EOFError, KeyboardInterrupt):
            answer = ask("\nStop the job (s), or leave it running (any other key)? ")
    if answer.strip().lower().startswith("s"):
        client.stop_job(job_id)
        print(f"job {job_id} is told to stop; what it stored is kept")
    else:
        print(f"\njob {job_id} goes on; stop it with: raylib stop {job_id}", file=sys.stderr)
    return 130
