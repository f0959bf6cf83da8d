"""Events of sources under load: nobody starves, and what is kept for events under way is bounded.

Proves (docs/coherence.md, "Events"): a stream is read on although messages of channels never end; a
hundred events behind a change of the subscriptions do not each read and keep all of them.
"""

import threading

import pytest

from test_bus import fill
from test_events import gaps, gone, start, wait_sources

pytestmark = pytest.mark.needs_proxy

SOURCES = {'event-source "app"': {"channel": "app"}, 'event-source "log"': {"stream": "log"},
           'event "e"': {"match": "e.{n}", "invalidate": "k:{n}"}}


def test_a_stream_is_read_while_a_channel_never_rests(start_proxy, redis_server, start_relay):
    relay = start_relay(redis_server.address)
    own, = start(start_proxy, "redis://127.0.0.1:%d" % relay.address[1],
                 options={"coherence": "ttl", "ttl-mode-max": "1h"}, config=SOURCES)
    wait_sources(own, 2)
    stop = threading.Event()

    def publish_on():
        with redis_server.client() as direct:
            while not stop.wait(0.01):
                direct.ok("PUBLISH", "app", "other")

    with own.client() as client:
        fill(client, "k:1", "k:2")
        # Each event takes a while: there are always some under way.
        relay.delay(kind="all", to_proxy=0.1)
        thread = threading.Thread(target=publish_on)
        thread.start()
        try:
            own.wait_metric("event_messages_total", 50, result="event")
            # The first ends a round that waited before, the second needs one of its own.
            for number in (1, 2):
                redis_server.ask("XADD", "log", "*", "event", f"e.{number}")
                gone(client, f"k:{number}")
        finally:
            stop.set()
            thread.join()
    assert gaps(own) == 0


def test_patterns_are_read_once_for_many(start_proxy, redis_server, start_relay):
    relay = start_relay(redis_server.address)
    own, = start(start_proxy, "redis://127.0.0.1:%d" % relay.address[1],
                 options={"coherence": "ttl", "ttl-mode-max": "1h", "event-queue": "1024"},
                 config={'event-source "app"': {"channel": "app"}})
    wait_sources(own)
    with own.client() as client, redis_server.client() as direct:
        fill(client, *(f"k:{n}" for n in range(300)))
        client.ok("CACHE", "SUBSCRIBE", "e.{n}", "k:{n}", *(f"k{i}:{{n}}" for i in range(500)))
        heard = own.metrics().get("event_messages_total", result="event")
        done = own.metrics().get("events_total", result="done")
        # The reading takes a while, and all of them come meanwhile.
        relay.delay(kind="all", to_proxy=0.1)
        direct.ok("MULTI")
        for number in range(300):
            direct.ask("PUBLISH", "app", f"e.{number}")
        direct.ok("EXEC")
        own.wait_metric("event_messages_total", heard + 300, result="event")
        own.wait_metric("events_total", done + 300, result="done")
        relay.delay(kind="all")
        gone(client, *(f"k:{n}" for n in range(300)))
    assert own.metrics().get("event_pattern_reads_total") <= 3
    assert gaps(own) == 0
