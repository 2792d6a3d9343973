"""The service's own overhead: what it adds to two mock LLMs that answer at once.

    python benchmarks/service_load.py --rate 50 --seconds 60

Starts two mock LLMs and the service, each in a process of its own, sends requests at a fixed rate whether or not the
earlier ones are answered, and prints one line of JSON. `milliseconds` are a request's, as the client sees it; `direct`
the same client's at the same rate without the service, from a mock LLM, and `overhead` the difference: what the service
adds, with two calls in place of one, and the ranker (`--ranker longest` takes next to none). `cpu_milliseconds` are
those of the service's process for a request, and `bare_cpu_milliseconds` those of a process that makes the same two
calls with httpx and nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np

_MOCK = """
import asyncio, json, sys
delay = float(sys.argv[1])
chunk = json.dumps({"choices": [{"index": 0, "delta": {"content": sys.argv[2]}, "finish_reason": "stop"}],
                    "usage": {"prompt_tokens": 5, "completion_tokens": 9}})
body = f"data: {chunk}\\n\\ndata: [DONE]\\n\\n".encode()
head = b"HTTP/1.1 200 OK\\r\\ncontent-type: text/event-stream\\r\\ncontent-length: %d\\r\\n\\r\\n" % len(body)

async def serve(reader, writer):
    try:
        while True:
            lines = (await reader.readuntil(b"\\r\\n\\r\\n")).lower().split(b"\\r\\n")
            await reader.readexactly(next(int(line[15:]) for line in lines if line.startswith(b"content-length:")))
            await asyncio.sleep(delay)
            writer.write(head + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""
# Makes the two calls of a request with httpx, at a fixed rate, and prints its milliseconds of CPU for each request.
_BARE = """
import asyncio, json, sys, time
import httpx

async def main(rate, seconds, *urls):
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Why is the sky blue?"}]}
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
    async with httpx.AsyncClient(timeout=60, limits=limits) as client:

        async def call(url):
            async with client.stream("POST", url + "/chat/completions", json=body) as response:
                async for _ in response.aiter_bytes():
                    pass

        for url in urls * 10:
            await call(url)
        begun, cpu, tasks = time.perf_counter(), time.process_time(), []
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, begun + number / rate - time.perf_counter()))
            tasks += [asyncio.create_task(call(url)) for url in urls]
        await asyncio.gather(*tasks)
        print(round(1000 * (time.process_time() - cpu) / int(rate * seconds), 2))

asyncio.run(main(float(sys.argv[1]), float(sys.argv[2]), *sys.argv[3:]))
"""
_ANSWERS = ("Because the air scatters blue light most.", "The sky is blue, as the air scatters its light.")


def _memory(process: int) -> float:
    """Resident MiB of a process."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _cpu(process: int) -> float:
    """Return the seconds of CPU that a process has taken, user and system."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _load(url: str, rate: float, seconds: float, process: int) -> dict[str, Any]:
    body = {"model": "blend", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}
    durations, statuses, memory = [], [], []
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:

        async def ask() -> None:
            started = time.perf_counter()
            response = await client.post("/chat/completions", json=body)
            durations.append(time.perf_counter() - started)
            statuses.append(response.status_code)

        for _ in range(20):  # connections and caches
            await ask()
        durations.clear()
        statuses.clear()
        begun, cpu, tasks = time.perf_counter(), _cpu(process), []
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, begun + number / rate - time.perf_counter()))
            tasks.append(asyncio.create_task(ask()))
            if number % max(int(rate), 1) == 0:
                memory.append(_memory(process))
        await asyncio.gather(*tasks)
        took, cpu = time.perf_counter() - begun, _cpu(process) - cpu
    milliseconds = 1000 * np.array(durations)
    return {
        "requests": len(statuses),
        "failed": sum(status != 200 for status in statuses),
        "per_second": round(len(statuses) / took, 1),
        "milliseconds": {name: round(float(np.percentile(milliseconds, q)), 1) for name, q in _PERCENTILES.items()},
        "cpu_milliseconds": round(1000 * cpu / len(statuses), 2),  # of the service, per request
        "memory_mib": {"first": round(memory[0], 1), "last": round(memory[-1], 1), "most": round(max(memory), 1)},
    }


_DIRECT = 20.0  # seconds
_PERCENTILES = {"p50": 50, "p95": 95, "p99": 99, "max": 100}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=50, help="requests per second")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds that the mock LLMs take")
    parser.add_argument("--ranker", default="longest", help="bundled measures the throughput with it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        mocks = [
            subprocess.Popen(
                [sys.executable, "-c", _MOCK, str(options.delay), answer], stdout=subprocess.PIPE, text=True
            )
            for answer in _ANSWERS
        ]
        ports = [mock.stdout.readline().strip() for mock in mocks if mock.stdout]
        config = Path(folder) / "blend.toml"
        config.write_text(
            "".join(
                f'[[llm]]\nname = "mock{port}"\nmodel = "m"\nconcurrency = 100\nbase_url = "http://127.0.0.1:{port}/v1"\n'
                for port in ports
            )
            + f'[ranker]\nname = "{options.ranker}"\n[server]\nport = 0\nconcurrency = 64\nqueue = 1000\n'
        )
        service = subprocess.Popen(
            [sys.executable, "-c", "from llm_blender.cli import main; main()", "serve", "--config", str(config)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "LLM_BLENDER_STORE": str(Path(folder) / "blend.db")},
        )
        try:
            assert service.stderr is not None
            url = service.stderr.readline().split()[2]
            urls = [f"http://127.0.0.1:{port}/v1" for port in ports]
            mock, seconds = urls[0], str(min(options.seconds, _DIRECT))
            bare = float(subprocess.check_output([sys.executable, "-c", _BARE, str(options.rate), seconds, *urls]))
            direct = asyncio.run(_load(mock, options.rate, min(options.seconds, _DIRECT), mocks[0].pid))["milliseconds"]
            result = asyncio.run(_load(url, options.rate, options.seconds, service.pid))
            overhead = {name: round(value - direct[name], 1) for name, value in result["milliseconds"].items()}
            result["bare_cpu_milliseconds"] = bare
            compared = {"direct": direct, "overhead": overhead, "cores": os.cpu_count(), "load": os.getloadavg()[0]}
            print(json.dumps({**vars(options), **result, **compared}))
        finally:
            service.send_signal(signal.SIGTERM)
            service.wait()
            for mock in mocks:
                mock.kill()
                mock.wait()


if __name__ == "__main__":
    main()
