"""Every command and subcommand of the real server's COMMAND list, through the proxy and directly.

harness/every_command.py has plausible, failing and odd cases for each; wrong numbers of arguments
and keys of a wrong type are added here. Every case goes to a standalone Redis directly and to the
proxy, in RESP2 and RESP3, in front of a server and of a cluster: the replies are the same bytes, or
the difference stands in the table of docs/differences.md. What stands there and does not occur
fails too. Where two servers of one state need not answer the same bytes, NOISE says how they are
compared.

The proxies run with admin-commands = on; that the commands are off without it is test_front.py's.
"""

import re

import pytest

from harness.commands import COMPARE
from harness.every_command import STATE, Case, read_cases, word
from harness.proxy import Proxy
from harness.resp import RawClient, decode, encode
from harness.servers import ROOT, RedisServer
from harness.waiting import wait_until
from test_differential import SAME

pytestmark = pytest.mark.needs_proxy

TABLE = ROOT / "docs" / "differences.md"
CASES = read_cases()


# --- comparing where two servers may differ -------------------------------------------------------

def masked(frame):
    """Numbers do not matter, names and kinds do."""
    return re.sub(rb"0x[0-9a-f]+|-?\d+(\.\d+)?(e[-+]\d+)?", b"#", frame)


def same_shape(one, other):
    return masked(re.sub(rb"\$\d+\r\n|=\d+\r\n", b"", one)) == masked(
        re.sub(rb"\$\d+\r\n|=\d+\r\n", b"", other))


def same_kind(one, other):
    return one[:1] == other[:1]


def sorted_value(value):
    if isinstance(value, dict):
        return sorted((repr(key), sorted_value(item)) for key, item in value.items())
    if isinstance(value, list):
        return sorted((sorted_value(item) for item in value), key=repr)
    return value


def same_sorted(one, other):
    return one[:1] == other[:1] and sorted_value(decode(one)) == sorted_value(decode(other))


def names_of(frame):
    """Of name:value or name=value lines: the names and headings, without those of every server."""
    text = decode(frame)
    if not isinstance(text, bytes):
        return text
    if b"=" in text and b":" not in text.split(b"=")[0]:
        return [[field.split(b"=")[0] for field in line.split()] for line in text.splitlines()[-1:]]
    return {re.split(rb"[:=]", line)[0] for line in text.splitlines()
            if not re.match(rb"db\d|cmdstat_|errorstat_|latency_percentiles|io_thr|slave|module", line)}


def same_names(one, other):
    return one[:1] == other[:1] and names_of(one) == names_of(other)


def same_info(one, other):
    """What INFO may show more is the proxy's own section, and nothing else."""
    rest = other
    if b"# Nearcached" in other:
        text = decode(other).partition(b"# Nearcached")[0]
        rest = other[:1] + b"%d\r\n" % (len(text) + 4 * (other[:1] == b"=")) + (
            b"txt:" if other[:1] == b"=" else b"") + text + b"\r\n"
    assert same_names(one, rest), (names_of(one) ^ names_of(rest), one[:1], other[:1])
    return rest is other


def same_map_keys(one, other):
    def keys(frame):
        found = decode(frame)
        pairs = found if isinstance(found, dict) else dict(zip(found[::2], found[1::2]))
        return [key for key in pairs if not key.startswith(b"db.")]
    return keys(one) == keys(other)


def same_length(one, other):
    return len(one) == len(other) and one[:1] == other[:1]


NOISE = {
    "time": same_shape, "lastsave": same_shape, "client|id": same_shape, "hello": same_shape,
    "client|info": same_names, "client|list": same_names, "info": same_info,
    "memory|stats": same_map_keys, "memory|malloc-stats": same_kind, "memory|doctor": same_kind,
    "memory|usage": same_shape, "randomkey": same_kind, "acl|genpass": same_length,
    "slowlog|get": same_kind, "slowlog|len": same_kind, "latency|histogram": same_kind,
    "latency|latest": same_kind, "latency|reset": same_kind,
    "command": same_sorted, "command|docs": same_sorted, "command|info": same_sorted,
    "command|list": same_sorted, "config|get": same_sorted, "acl|cat": same_sorted,
    "acl|getuser": same_sorted, "acl|list": same_sorted, "function|list": same_sorted,
    "keys": same_sorted, "bgsave": same_kind, "bgrewriteaof": same_kind, "lolwut": same_kind,
    "scan": same_sorted, "debug": same_shape, "xreadgroup": same_shape, "xautoclaim": same_shape, "xclaim": same_shape,
    "monitor": same_kind, "acl|log": same_kind, "function|stats": same_sorted,
}


def is_same(name, expected, got):
    if expected == got:
        return True
    if (expected[:1] == b"-") != (got[:1] == b"-"):
        return False
    if name in NOISE:
        return NOISE[name](expected, got)
    how = COMPARE.get(name.replace("|", " ").upper(), "exact")
    return how == "backend" and same_kind(expected, got) or SAME[how](expected, got)


# --- the table ------------------------------------------------------------------------------------

class Row:
    """| `COMMAND`, ... | any, standalone or cluster | what, with `parts of the reply` | why |"""

    def __init__(self, line):
        names, self.where, difference, _ = [cell.strip() for cell in line.strip("| \n").split(" | ")]
        assert self.where in ("any", "standalone", "cluster"), line
        self.names = [each.lower().replace(" ", "|") for each in re.findall(r"`([^`]+)`", names)]
        assert self.names and all(name in CASES for name in self.names), line
        self.parts = re.findall(r"`([^`]+)`", difference)

    def fits(self, name, where, got):
        if name not in self.names or self.where not in ("any", where):
            return False
        return all(part.replace("COMMAND", name.replace("|", " ")).encode() in got
                   for part in self.parts)


def read_rows():
    text = TABLE.read_text()
    return [Row(line) for line in text.splitlines() if line.startswith("| `")]


# --- cases that are made --------------------------------------------------------------------------

def all_commands(reference):
    """{name: arity} of the server's COMMAND, subcommands included."""
    def walk(rows):
        for row in rows:
            yield row[0].decode(), row[1]
            yield from walk(row[9])
    with reference.client() as client:
        return dict(walk(client.ok("COMMAND")))


def wrong_arity(name, arity):
    own = [part.encode() for part in name.upper().split("|")]
    found = []
    if abs(arity) > len(own):
        found.append(Case([own]))
    if abs(arity) > len(own) + 1:
        found.append(Case([own + [b"{t}str"]]))
    if arity > 0:
        found.append(Case([own + [b"{t}str"] * (arity - len(own) + 1)]))
    return found


def wrong_type(client, cases):
    """The first case with a key, that key being one of another type."""
    for case in cases:
        if len(case.commands) > 1:
            continue
        keys = client.value("COMMAND", "GETKEYS", *case.commands[0])
        if not isinstance(keys, list) or not keys or keys[0] == b"{t}ch":
            continue
        at = case.commands[0].index(keys[0])
        return [Case([case.commands[0][:at] + [other] + case.commands[0][at + 1:]])
                for other in (b"{t}list", b"{t}str", b"{t}zset")]
    return []


# --- the two sides --------------------------------------------------------------------------------

class Connection:
    """A connection of one side; opened anew when a case ended it."""

    def __init__(self, address, protocol):
        self.address, self.protocol = address, protocol
        self.client = RawClient(address, protocol)

    def run(self, case):
        """The replies; a closed connection is one of them."""
        try:
            self.client.send(b"".join(encode(*command) for command in case.commands))
            frames = [self.client.read() for _ in range(case.n_replies)]
        except (EOFError, ConnectionError):
            frames = [b"!closed"]
        if frames[-1] == b"!closed" or case.commands[0][0].upper() in (
                b"QUIT", b"MONITOR", b"SUBSCRIBE", b"PSUBSCRIBE", b"SSUBSCRIBE", b"RESET",
                b"HELLO", b"SELECT"):
            self.reopen()
        return frames

    def reopen(self):
        self.client.close()
        self.client = RawClient(self.address, self.protocol)

    def populate(self):
        commands = [[b"FLUSHALL"], [b"SCRIPT", b"FLUSH"], [b"CONFIG", b"RESETSTAT"],
                    [b"ACL", b"DELUSER", b"nctester"]] + [
            [word(each) for each in line] for line in STATE]
        self.client.send(b"".join(encode(*command) for command in commands))
        frames = [self.client.read() for _ in commands]
        assert not any(frame.startswith(b"-") for frame in frames), frames


def load_library(connection):
    library = word("!library")
    frame = connection.client.ask("FUNCTION", "LOAD", "REPLACE", library)
    assert frame == b"$6\r\nnctest\r\n", frame


def settle(servers):
    """Nobody saves in the background: what SAVE and its kind answer depends on it."""
    def is_quiet(server):
        fields = server.info("persistence")
        return all(str(fields.get(name, "0")) == "0" for name in (
            "rdb_bgsave_in_progress", "aof_rewrite_in_progress", "aof_rewrite_scheduled"))
    for server in servers:
        wait_until(lambda: is_quiet(server), 20, "the end of a background save")


def differing(names, reference, address, servers):
    """{(name, case, got)} of all commands, and how many replies were compared."""
    found, n_compared = [], 0
    with reference.client() as asked:
        for protocol in (2, 3):
            direct = Connection(reference.address, protocol)
            proxied = Connection(address, protocol)
            for name in sorted(names):
                cases = CASES[name] + wrong_arity(name, names[name]) + wrong_type(
                    asked, CASES[name])
                for side in (direct, proxied):
                    side.populate()
                    if name.startswith(("fcall", "function")):
                        load_library(side)
                for case in cases:
                    if name in ("save", "bgsave", "bgrewriteaof") or b"RELOAD" in case.commands[0]:
                        settle(servers)
                    expected, got = direct.run(case), proxied.run(case)
                    n_compared += len(expected)
                    if len(expected) != len(got):
                        found.append((name, case, expected, got[-1]))
                    for one, other in zip(expected, got):
                        if not is_same(name, one, other):
                            found.append((name, case, one, other))
            for side in (direct, proxied):
                side.client.close()
    return found, n_compared


def check(where, found):
    """Every difference has a row, every row a difference."""
    rows = read_rows()
    missing = [each for each in found
               if not any(row.fits(each[0], where, each[3]) for row in rows)]
    unseen = sorted({
        f"{name} ({row.where}): {row.parts}" for row in rows if row.where in ("any", where)
        for name in row.names
        if not any(each[0] == name and row.fits(name, where, each[3]) for each in found)})
    texts = [f"{name}: {case}\n      expected {one[:300]!r}\n      got      {other[:300]!r}"
             for name, case, one, other in missing]
    assert not texts, f"{len(texts)} undocumented differences:\n" + "\n".join(texts[:999])
    assert not unseen, "documented in docs/differences.md, but not seen:\n" + "\n".join(unseen)


# --- tests ----------------------------------------------------------------------------------------

@pytest.fixture
def commands(reference):
    found = all_commands(reference)
    version = decode(reference.client().ask("INFO", "server"))
    if b"redis_version:7.0." not in version:
        pytest.skip("the cases are those of Redis 7.0")
    return found


def test_every_command_has_cases(commands):
    assert set(commands) == set(CASES)


@pytest.mark.long_test(240)
def test_in_front_of_a_server(commands, reference, _session_servers):
    backend = _session_servers.get("every-backend", RedisServer)
    proxy = _session_servers.get("every-proxy", lambda directory: Proxy(
        directory, backend.url(), {"admin-commands": "on"}))
    found, n_compared = differing(commands, reference, proxy.address, [reference, backend])
    assert n_compared > 3000
    check("standalone", found)
    proxy.assert_healthy()


@pytest.mark.long_test(240)
def test_in_front_of_a_cluster(commands, reference, cluster, _session_servers):
    proxy = _session_servers.get("every-cluster-proxy", lambda directory: Proxy(
        directory, cluster.url(), {"admin-commands": "on"}))
    wait_until(proxy.is_ready, 15, "the proxy to be ready")
    found, n_compared = differing(commands, reference, proxy.address,
                                  [reference, *cluster.masters()])
    assert n_compared > 3000
    check("cluster", found)
    proxy.assert_healthy()
