"""Clients of the serving benchmark, in a process of their own: connections that each ask, wait for the answer and ask
again; or with --rate requests that come whether the server keeps up or not.

Hand-written HTTP over sockets, for a client library would take more of two cores than the server does. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from typing import Any

WORDS = """page report table figure annual energy budget summary open file lines text error function argument object
name type default value class state connection socket thread process bytes string encode decode parse format date time
number search document match pattern sort key group output path stream method mapping sequence question answer"""


def text(chooser: random.Random) -> str:
    """A query of 2 to 8 words; of millions hardly two are alike."""
    return " ".join(chooser.choices(WORDS.split(), k=chooser.randint(2, 8))) + f" {chooser.randrange(10**4)}"


def request(chooser: random.Random, port: int, encoding: str) -> bytes:
    body = json.dumps({"input": text(chooser), "encoding_format": encoding}).encode()
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


Found = list[tuple[int, float, float]]
"""(status, when it was answered, seconds it took); status 0 for a connection that failed."""


class Connections:
    """Those that are free are used again."""

    def __init__(self, port: int, encoding: str) -> None:
        self.port, self.encoding, self.found = port, encoding, Found()
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, chooser: random.Random) -> float:
        """One request; gives the seconds that the server wants one to wait before the next."""
        start = time.perf_counter()
        asked = request(chooser, self.port, self.encoding)
        try:
            try:
                if not self._free:
                    raise EOFError
                status, wait = await self._over(*self._free.pop(), asked)
            except (OSError, EOFError):  # the server has closed a connection that nobody used for long
                status, wait = await self._over(*await asyncio.open_connection("127.0.0.1", self.port), asked)
        except (TimeoutError, OSError, EOFError) as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            status, wait = 0, 0.1
        end = time.perf_counter()
        self.found.append((status, end, end - start))
        return wait

    async def _over(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: bytes
    ) -> tuple[int, float]:
        writer.write(asked)
        found = await asyncio.wait_for(answer(reader), 60)
        self._free.append((reader, writer))
        return found


async def again_and_again(connections: Connections, seed: int, until: float) -> None:
    chooser = random.Random(seed)
    while time.perf_counter() < until:
        wait = await connections.ask(chooser)
        if wait:
            await asyncio.sleep(wait * chooser.uniform(0.5, 1.0))


async def at_a_rate(connections: Connections, rate: float, until: float) -> None:
    """Poisson arrivals."""
    chooser, due = random.Random(0), time.perf_counter()
    asking: set[asyncio.Task[float]] = set()
    while due < until:
        due += chooser.expovariate(rate)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.ensure_future(connections.ask(chooser))
        asking.add(task)
        task.add_done_callback(asking.discard)
    await asyncio.gather(*asking)


async def answer(reader: asyncio.StreamReader) -> tuple[int, float]:
    """The status, and the seconds of Retry-After."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
    await reader.readexactly(length)
    wait = float(head.split(b"retry-after:")[1].split(b"\r\n")[0]) if b"retry-after:" in head else 0.0
    return int(head[9:12]), wait


async def load(asked: argparse.Namespace) -> dict[str, Any]:
    start = time.perf_counter() + asked.warm
    end = start + asked.seconds
    connections = Connections(asked.port, asked.encoding)
    if asked.rate:
        await at_a_rate(connections, asked.rate, end)
    else:
        seeds = range(asked.clients * 1000, asked.clients * 1001)
        await asyncio.gather(*(again_and_again(connections, seed, end) for seed in seeds))
    return summary(connections.found, start, end if not asked.rate else float("inf"), asked.seconds) | {
        "clients": asked.clients
    }


def summary(found: Found, start: float, end: float, seconds: float) -> dict[str, Any]:
    """Of what was answered from `start` to `end`."""
    counted = [one for one in found if start <= one[1] <= end]
    statuses: dict[str, int] = {}
    for status, _, _ in counted:
        statuses[str(status)] = statuses.get(str(status), 0) + 1
    taken = sorted(took for status, _, took in counted if status == 200)
    shares = {f"p{share}": 1000 * at(taken, share) for share in (50, 95, 99)}
    return {"requests/s": len(taken) / seconds, "statuses": statuses, "ms": shares}


def at(taken: list[float], share: int) -> float:
    """A percentile of sorted seconds; infinite where there are none."""
    return taken[min(len(taken) - 1, len(taken) * share // 100)] if taken else float("inf")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("clients", type=int)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--warm", type=float, default=2.0)
    parser.add_argument("--encoding", default="base64")
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(load(parser.parse_args()))))


if __name__ == "__main__":
    main()
