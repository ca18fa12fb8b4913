"""Live sessions through the real balancer and a real gateway, while stub workers die."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import numpy as np

from app.config import Config
from app.live.gateway import Gateway
from tests.support.entry import Entry
from tests.support.live import TRANSCRIPTION, LiveClient, marked, numbers_of, transcript
from tests.support.stub_worker import Reply

SESSIONS, TURNS = 3, 3
TURN_S = 6.0
SPEED = 3.0  # times real time
LIMIT_S = 240


def test_every_turn_has_all_its_words_while_workers_are_killed_and_the_balancer_reloaded(tmp_path):
    """The workers' words are the numbers of the audio that they get, so each word is compared."""
    settings = {"LIVE_INTERVAL_S": "0.5", "QUEUE_TIMEOUT_S": "1"}
    with Entry.started(tmp_path, workers=2, **settings) as entry:
        for worker in entry.workers:
            worker.answer = lambda form: Reply(body=transcript(form))
            worker.delay_s = 0.1
        clients = asyncio.run(asyncio.wait_for(listened(entry), LIMIT_S))

    words = list(range(1, int(TURN_S * 2) + 1))
    for client in clients:
        completed = client.of(f"{TRANSCRIPTION}.completed")
        assert [numbers_of(turn["transcript"]) for turn in completed] == [words] * TURNS
        assert client.of(f"{TRANSCRIPTION}.failed") == []
        assert client.of("rate_limits.updated")  # windows were refused while no worker was up
        client.assert_deltas_add_up()


async def listened(entry: Entry) -> list[LiveClient]:
    """Return sessions that have spoken and got their text while the pool was disturbed."""
    gateway = Gateway(Config.from_env(entry.settings, env_file=None))
    async with gateway.serve() as server:
        while not entry.figures()["live"]["gateways_up"]:
            await asyncio.sleep(0.1)
        sessions = [asyncio.create_task(session(entry.url)) for _ in range(SESSIONS)]
        await disturb(entry)
        clients = await asyncio.gather(*sessions)
        await gateway.drain(server)
    return clients


async def session(url: str) -> LiveClient:
    """Speak all turns, and wait for their words."""
    turn = np.concatenate([marked(TURN_S), np.zeros(16_000, np.float32)])
    async with LiveClient.session(url) as client:
        await client.converse(np.tile(turn, TURNS), SPEED)
        await client.finish()
    return client


async def disturb(entry: Entry) -> None:
    """Kill each worker, then all at once for longer than requests wait, and reload the balancer."""
    for worker in entry.workers:
        await asyncio.sleep(0.7)
        with worker.killed():
            await asyncio.sleep(0.5)
    with ExitStack() as dead:
        for worker in entry.workers:
            dead.enter_context(worker.killed())
        await asyncio.sleep(2.5)
    await asyncio.to_thread(entry.reload)
