"""A certificate that is replaced 50 times under 1,000 connections: no request fails.

`--count` says how often it is replaced. Half of the times the server is told by a signal, otherwise it notices.
"""

import asyncio
import resource
import signal
import ssl
import time

from certificates import Authority
from secure import Secure

CONNECTIONS = 1000
# Every tenth client opens a new connection for each request.
NEW = 10
REQUEST = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def client(server, context, number, counts, ended):
    """Sends requests until the end. Every failure is one of the test."""
    stream = None
    while not ended.is_set():
        if stream is None or number % NEW == 0:
            if stream:
                stream[1].close()
            stream = await asyncio.open_connection("localhost", server.port, ssl=context)
        reader, writer = stream
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))
        counts[number] += 1
        await asyncio.sleep(0.2)
    stream[1].close()


async def replace(server, times, ended):
    try:
        for number in range(times):
            serial, told = server.renew(), number % 2 == 0
            if told:
                server.process.send_signal(signal.SIGHUP)
            began = time.monotonic()
            while await asyncio.to_thread(server.seen) != serial:
                # Detected within 5 s; the rest is the machine's, which is busy with the clients.
                assert time.monotonic() - began < 10, f"replacement {number} is not used"
                await asyncio.sleep(0.1)
    finally:
        ended.set()


async def run(server, times):
    context = ssl.create_default_context(cafile=str(server.authority.path))
    counts, ended = [0] * CONNECTIONS, asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(CONNECTIONS):
            group.create_task(client(server, context, number, counts, ended))
        group.create_task(replace(server, times, ended))
    return counts


def test_a_certificate_is_replaced_under_load(tmp_path, option):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    with Secure(tmp_path, Authority(tmp_path)) as server:
        counts = asyncio.run(run(server, option("count", 50)))
        assert min(counts) > 0
        print(f"{sum(counts)} requests over {CONNECTIONS} connections, none failed")
