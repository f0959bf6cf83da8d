"""tables/commands.def and the request reader against a real server.

Names, arities and keys are those of COMMAND; keys of commands whose keys move are those of
COMMAND GETKEYS; the reader refuses what the server refuses, in the same words; nothing is learnt
from a server of the version that the table describes.
"""

import socket

import pytest

from harness.resp import decode
from harness.resptool import RespTool

KEYS_RANGE = 1
WRITES, OPAQUE, LEARNT = 1 << 0, 1 << 1, 1 << 5


@pytest.fixture(scope="module")
def tool(tmp_path_factory):
    tool = RespTool(tmp_path_factory.mktemp("resp_tool"))
    yield tool
    tool.close()


def described(server):
    """{name: (arity, first, last, step, flags)} as the server's COMMAND says."""
    with server.client(2) as client:
        found = {}
        for command in client.value("COMMAND"):
            for one in [command, *command[9]]:
                name = one[0].decode().replace("|", " ")
                found[name] = (one[1], *one[3:6], {flag.decode() for flag in one[2]})
        return found


def skip_unless_7_0(server):
    with server.client(2) as client:
        if b"redis_version:7.0." not in client.value("INFO", "server"):
            pytest.skip("the table describes Redis 7.0; this server is another version")


def test_the_table_is_the_servers(tool, reference):
    skip_unless_7_0(reference)
    table, real = tool.table(), described(reference)
    assert set(table) - set(real) == {"cache"}
    assert set(real) - set(table) == set()
    assert len(real) == 240 + 126
    for name, (arity, first, last, step, _) in real.items():
        row = table[name]
        assert row["arity"] == arity, name
        if row["keys"] <= KEYS_RANGE:
            assert (row["first"], row["last"], row["step"]) == (first, last, step), name


def test_flags_agree_with_the_classes(tool, reference):
    skip_unless_7_0(reference)
    table, real = tool.table(), described(reference)
    reads = {"CACHED_READ", "READ", "SPLIT_READ", "MULTI_READ"}
    for name, (_, _, _, _, flags) in real.items():
        row = table[name]
        if row["class"] in reads:
            assert "readonly" in flags and not row["flags"] & WRITES, name
        if "write" in flags and row["class"] not in ("REFUSED", "ALL_NODES"):
            assert row["flags"] & WRITES, name


GETKEYS = """
GET k|MGET a b a|MSET a 1 b 2|DEL a b|BLPOP a b 0|BITOP AND d a b|RENAME a b|LCS a b
OBJECT ENCODING k|MEMORY USAGE k|XGROUP CREATE k g $|XINFO STREAM k
EVAL s 2 a b c|EVAL s 0|EVALSHA_RO s 1 a|FCALL f 1 a b|FCALL_RO f 2 a b
LMPOP 2 a b LEFT|ZMPOP 1 a MIN|BLMPOP 0 2 a b LEFT|BZMPOP 0 1 a MIN
SINTERCARD 2 a b LIMIT 1|ZINTERCARD 1 a|ZINTER 2 a b WITHSCORES|ZUNION 1 a|ZDIFF 2 a b
ZINTERSTORE d 2 a b|ZUNIONSTORE d 1 a WEIGHTS 2|ZDIFFSTORE d 2 a b
XREAD STREAMS a b 0 0|XREAD COUNT 2 BLOCK 0 STREAMS a 0|XREADGROUP GROUP streams c STREAMS a >
XREADGROUP GROUP g c COUNT 1 NOACK STREAMS a b > >
SORT k|SORT k BY w_* LIMIT 0 1 GET # STORE d|SORT k STORE x STORE d|SORT k BY STORE GET x
SORT_RO k BY w_*
GEORADIUS k 15 37 200 km|GEORADIUS k 15 37 200 km STORE d|GEORADIUS k 1 2 3 km STORE a STOREDIST d
GEORADIUSBYMEMBER k m 1 km STORE d
MIGRATE h 1 k 0 5|MIGRATE h 1 "" 0 5 COPY KEYS a b|MIGRATE h 1 "" 0 5 AUTH KEYS KEYS a
GEOSEARCHSTORE d s FROMLONLAT 1 2 BYRADIUS 1 km|PFCOUNT a b|SMOVE a b m|RESTORE k 0 x
"""

WITHOUT_KEYS = """
PING|EVAL s x a|EVAL s 3 a|EVAL s -1 a|LMPOP 0 a LEFT|LMPOP 3 a LEFT|ZUNIONSTORE d 5 a|ZINTER x a
XREAD STREAMS a|XREAD COUNT STREAMS a
"""


def forms(text):
    for line in text.strip().splitlines():
        for form in line.split("|"):
            yield [b"" if word == '""' else word.encode() for word in form.split()]


def test_keys_are_those_of_command_getkeys(tool, reference):
    with reference.client(2) as client:
        for command in forms(GETKEYS):
            frame = client.ask("COMMAND", "GETKEYS", *command)
            # "The command has no key arguments" for EVAL with 0.
            expected = [] if frame.startswith(b"-") else decode(frame)
            ours = tool.ask("keys", *command).splitlines()
            assert ours == expected, (command, frame)
            assert expected or command[-1] == b"0", (command, frame)


def test_keys_that_do_not_parse_are_not_found(tool, reference):
    with reference.client(2) as client:
        for command in forms(WITHOUT_KEYS):
            frame = client.ask("COMMAND", "GETKEYS", *command)
            assert frame.startswith(b"-") or frame == b"*0\r\n", (command, frame)
            assert tool.ask("keys", *command) == (b"" if command == [b"PING"] else b"none"), command


def test_nothing_is_learnt_from_a_server_that_the_table_describes(tool, reference):
    skip_unless_7_0(reference)
    with reference.client(2) as client:
        assert tool.table("learn", client.ask("COMMAND")) == {}


# CLIENT X has no keys, so it is not learnt: its container decides. XINFO's other subcommands keep
# the name of another container than the one they stand in, which makes no sense.
NEW_NAMES = {
    "get": "foo.get", "mget": "foo.mget", "append": "FOO.APPEND", "mset": "foo.mset",
    "eval": "foo.eval", "time": "foo.time", "dbsize": "foo.dbsize", "save": "foo.save",
    "blpop": "foo.blpop", "sort": "foo.sort", "object|encoding": "object|newthing",
    "client|id": "client|x", "xinfo": "foo.info", "xinfo|stream": "foo.info|stream",
}


def test_a_command_that_the_table_lacks_is_learnt_as_the_server_describes_it(tool, reference):
    """The server's own descriptions under other names: classes follow from flags and keys."""
    with reference.client(2) as client:
        reply = client.ask("COMMAND")
    for old, new in NEW_NAMES.items():
        frame = b"$%d\r\n%s\r\n" % (len(old), old.encode())
        assert reply.count(frame) == 1, old
        reply = reply.replace(frame, b"$%d\r\n%s\r\n" % (len(new), new.encode()))
    learnt = tool.table("learn", reply)
    classes = {name: row["class"] for name, row in learnt.items()}
    assert classes == {
        "foo.get": "READ", "foo.mget": "MULTI_READ", "foo.append": "WRITE",
        "foo.mset": "MULTI_WRITE", "foo.eval": "SCRIPT", "foo.time": "SCRIPT",
        "foo.dbsize": "ALL_NODES", "foo.save": "ADMIN", "foo.blpop": "PINNED",
        "foo.sort": "WRITE", "object newthing": "READ", "foo.info": "SCRIPT",
        "foo.info stream": "READ",
    }
    assert all(row["flags"] & LEARNT for row in learnt.values())
    assert (learnt["object newthing"]["first"], learnt["object newthing"]["last"]) == (2, 2)
    writes = {name for name, row in learnt.items() if row["flags"] & WRITES}
    assert writes == {"foo.append", "foo.mset", "foo.eval", "foo.time", "foo.save", "foo.blpop",
                      "foo.sort", "foo.info"}
    opaque = {name for name, row in learnt.items() if row["flags"] & OPAQUE}
    assert opaque == {"foo.eval", "foo.time", "foo.save", "foo.sort", "foo.info"}


# What a client sends, on a connection of its own. The server's error must be the reader's.
INPUTS = [
    b"*2147483648\r\n", b"*abc\r\n", b"*+1\r\n", b"*01\r\n", b"*\r\n", b"*-0\r\n", b"*1 \r\n",
    b"*1\n$4\r\nPING\r\n", b"*1\r\nX4\r\n", b"*1\r\n\r4\r\n", b"*1\r\n$-1\r\n",
    b"*1\r\n$536870913\r\n", b"*1\r\n$abc\r\n", b"*1\r\n$\r\n\r\n", b"*1\r\n$ 4\r\n",
    b"*1\r\n$04\r\n", b"*1\r\n$4 \r\n", b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n*\r\n",
    b"*" + b"1" * 65536, b"*1\r\n$" + b"1" * 65536, b"P" * 65537, b"*" + b"1" * 30 + b"\r\n",
    b'ECHO "a\r\n', b"ECHO 'a\r\n", b'ECHO "a"b\r\n', b'ECHO a"b"c\r\n', b'ECHO "a\\"\r\n',
    b"ECHO 'a\\'\r\n", b"*1\r\n\n\r\n",
]

# What the server takes, and answers with one bulk string or an error for each request.
TAKEN = [
    b"ECHO x\r\n", b"  ECHO   x  \r\n", b"ECHO x\n", b"\r\n  \r\nECHO x\r\n", b"ECHO\rX\r\n",
    b'ECHO "\\x41\\n\\r\\t\\b\\a\\q\\"z"\r\n', b"ECHO '\\'a\\n'\r\n", b'ECHO ""\r\n',
    b'ECHO a"b"\r\n', b"ECHO \\x\r\n", b"ECHO x\x0by\r\n", b"ECHO \x0bq\r\n", b"ECHO x\r\r\n",
    b'ECHO "\\xZZ\\x4"\r\n', b'ECHO "\xff\x80"\r\n', b"ECHO 'a\"b'\r\n", b'"ECHO" x\r\n',
    b"*0\r\n*-1\r\n*-99999999999\r\n*2\r\n$4\r\nECHO\r\n$1\r\nx\r\n", b"*2\rX$4\rXECHOXX$1\rXyXX",
    b"*2\r\n$4\r\nECHO\r\n$0\r\n\r\n", b"ECHO \"a b\" \r\n", b"ECHO '' \r\n", b"ECHO \x0c\x0bz\r\n",
]


def answer_to(server, data, seconds=0.5):
    """What the server sends until it closes, or (None, ...) while it stays open and silent."""
    with socket.create_connection(server.address) as connection:
        connection.settimeout(seconds)
        received = b""
        try:
            connection.sendall(data)
            while piece := connection.recv(1 << 16):
                received += piece
        except TimeoutError:
            return received, False
        except ConnectionError:
            pass
        return received, True


def test_the_reader_refuses_what_the_server_refuses_in_the_same_words(tool, reference):
    for data in INPUTS:
        received, is_closed = answer_to(reference, data)
        ours = tool.ask("read", "1", data).splitlines()[-1]
        assert (received, is_closed) == (b"-ERR " + ours + b"\r\n", True), data[:60]


def test_the_reader_reads_what_the_server_reads(tool, reference):
    for data in TAKEN:
        received, is_closed = answer_to(reference, data, 0.1)
        assert not is_closed and received.startswith(b"$"), data
        ours = tool.ask("read", "1", data)
        assert ours.endswith(b"more"), data
        requests = [line for line in ours[:-len(b"more")].split(b"\n", 2) if line]
        echoed = ours[:-len(b"\nmore")].lstrip(b"\n")
        assert echoed.startswith(b"ECHO "), (data, requests)
        assert decode(received) == echoed[len(b"ECHO "):], data


def test_clients_without_login_are_limited_as_by_the_server(tool, start_redis):
    server = start_redis(password="secret")
    for data in (b"*11\r\n", b"*1\r\n$16385\r\n", b"*2147483648\r\n", b"*1\r\n$600000000\r\n"):
        received, is_closed = answer_to(server, data)
        ours = tool.ask("read", "0", data)
        assert (received, is_closed) == (b"-ERR " + ours + b"\r\n", True), data
    for data in (b"*10\r\n", b"*1\r\n$16384\r\n"):
        assert answer_to(server, data, 0.1) == (b"", False), data
        assert tool.ask("read", "0", data) == b"more", data
