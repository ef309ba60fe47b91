"""Clients of the serving benchmark, in a process of their own: connections that each ask, wait, and ask again.

Hand-written HTTP over sockets, for a client library would take more of two cores than the server does. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from typing import Any

WORDS = """page report table figure annual energy budget summary open file lines text error function argument object
name type default value class state connection socket thread process bytes string encode decode parse format date time
number search document match pattern sort key group output path stream method mapping sequence question answer"""


def text(chooser: random.Random) -> str:
    """Of 4 to 16 words; of millions of them hardly two are alike."""
    return " ".join(chooser.choices(WORDS.split(), k=chooser.randint(4, 16))) + f" {chooser.randrange(10**6)}"


def request(chooser: random.Random, port: int, encoding: str) -> bytes:
    body = json.dumps({"input": text(chooser), "encoding_format": encoding}).encode()
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def client(port: int, seed: int, until: float, encoding: str, found: list[tuple[int, float, float]]) -> None:
    """found: (status, when it was answered, seconds it took); status 0 for a connection that failed."""
    chooser = random.Random(seed)
    reader = writer = None
    while time.perf_counter() < until:
        start = time.perf_counter()
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert reader is not None
            writer.write(request(chooser, port, encoding))
            status, wait = await asyncio.wait_for(answer(reader), 60)
        except (TimeoutError, OSError, EOFError):
            status, wait, writer = 0, 0.1, None
        end = time.perf_counter()
        found.append((status, end, end - start))
        if wait:
            await asyncio.sleep(wait * chooser.uniform(0.5, 1.0))
    if writer is not None:
        writer.close()


async def answer(reader: asyncio.StreamReader) -> tuple[int, float]:
    """The status, and the seconds of Retry-After."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
    await reader.readexactly(length)
    wait = float(head.split(b"retry-after:")[1].split(b"\r\n")[0]) if b"retry-after:" in head else 0.0
    return int(head[9:12]), wait


async def load(port: int, clients: int, seconds: float, warm: float, encoding: str) -> dict[str, Any]:
    start = time.perf_counter() + warm
    end = start + seconds
    found: list[tuple[int, float, float]] = []
    await asyncio.gather(*(client(port, clients * 1000 + i, end, encoding, found) for i in range(clients)))
    counted = [one for one in found if start <= one[1] <= end]
    taken = sorted(took for status, _, took in counted if status == 200)
    statuses: dict[str, int] = {}
    for status, _, _ in counted:
        statuses[str(status)] = statuses.get(str(status), 0) + 1
    shares = {f"p{share}": 1000 * taken[min(len(taken) - 1, len(taken) * share // 100)] for share in (50, 95, 99)}
    return {"clients": clients, "requests/s": len(taken) / seconds, "statuses": statuses, "ms": shares if taken else {}}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("clients", type=int)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--warm", type=float, default=2.0)
    parser.add_argument("--encoding", default="base64")
    asked = parser.parse_args()
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(load(asked.port, asked.clients, asked.seconds, asked.warm, asked.encoding))))


if __name__ == "__main__":
    main()
