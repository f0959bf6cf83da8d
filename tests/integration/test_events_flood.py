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
