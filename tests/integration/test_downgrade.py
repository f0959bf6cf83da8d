"""resp_downgrade() says in RESP2 what the real server says in RESP2, for every cached read.

The server is asked in both versions; its RESP3 reply, downgraded, must be its RESP2 reply to the
byte. A cached read without a line here fails the first test.
"""

import pytest

from harness.resptool import RespTool

SETUP = """
SET s hello
SET n 12
SET empty ""
HSET h a 1 b 2
RPUSH l a b a
SADD set a b
SADD ints 1 2 3
ZADD z 1 a 2.5 b inf c 1e20 d 0.1 e -inf f 3.0000000000000004 g -0 h 1e-300 i
GEOADD g 13.361389 38.115556 P 15.087269 37.502669 C
XADD x 1-1 f v g w
XADD x 1-2 f v
EXPIRE n 100000
"""

AREA = "FROMLONLAT 15 37 BYRADIUS 200 km"

FORMS = f"""
GET s|GET empty|GET no|GET h
STRLEN s|STRLEN no|STRLEN h
GETRANGE s 0 -1|GETRANGE s 3 1|GETRANGE no 0 1|GETRANGE s x y
SUBSTR s 0 1|SUBSTR no 0 1
GETBIT s 1|GETBIT no 1|GETBIT s -1
BITCOUNT s|BITCOUNT s 0 1|BITCOUNT s 0 5 BIT|BITCOUNT no|BITCOUNT s 1
BITPOS s 1|BITPOS s 0 2|BITPOS no 1|BITPOS no 0|BITPOS s 2
BITFIELD_RO s GET u8 0|BITFIELD_RO s GET i5 1 GET u63 #0|BITFIELD_RO no GET u8 0|BITFIELD_RO s
BITFIELD_RO s SET u8 0 1
TYPE s|TYPE h|TYPE l|TYPE set|TYPE z|TYPE x|TYPE no
EXPIRETIME s|EXPIRETIME n|EXPIRETIME no
PEXPIRETIME s|PEXPIRETIME n|PEXPIRETIME no
HGET h a|HGET h no|HGET no a|HGET s a
HMGET h a no|HMGET h a b|HMGET no a b|HMGET s a
HGETALL h|HGETALL no|HGETALL s
HKEYS h|HKEYS no|HKEYS s
HVALS h|HVALS no
HLEN h|HLEN no|HLEN s
HEXISTS h a|HEXISTS h no|HEXISTS no a
HSTRLEN h a|HSTRLEN h no|HSTRLEN no a
LRANGE l 0 -1|LRANGE l 5 9|LRANGE no 0 1|LRANGE s 0 1
LLEN l|LLEN no|LLEN s
LINDEX l 0|LINDEX l 99|LINDEX no 0|LINDEX l x
LPOS l a|LPOS l no|LPOS l a COUNT 0|LPOS l a COUNT 1|LPOS l no COUNT 2|LPOS no a|LPOS no a COUNT 1
LPOS l a RANK -1|LPOS l a RANK 9|LPOS l a RANK 2 COUNT 3 MAXLEN 2|LPOS l a COUNT -1
LPOS l a RANK 0
SMEMBERS set|SMEMBERS ints|SMEMBERS no|SMEMBERS s
SCARD set|SCARD no
SISMEMBER set a|SISMEMBER set no|SISMEMBER no a
SMISMEMBER set a no|SMISMEMBER no a b
ZRANGE z 0 -1|ZRANGE z 0 -1 WITHSCORES|ZRANGE z 0 0 withscores|ZRANGE no 0 -1
ZRANGE no 0 -1 WITHSCORES|ZRANGE z 5 2 WITHSCORES|ZRANGE z 0 2 REV|ZRANGE z 0 2 REV WITHSCORES
ZRANGE z -inf +inf BYSCORE LIMIT 0 2 WITHSCORES|ZRANGE z (1 +inf BYSCORE
ZRANGE z +inf 0 BYSCORE REV WITHSCORES|ZRANGE z - + BYLEX|ZRANGE z - + BYLEX LIMIT 1 2
ZRANGE z - + BYLEX WITHSCORES|ZRANGE z x y WITHSCORES|ZRANGE s 0 -1 WITHSCORES
ZRANGE withscores withscores withscores|ZRANGE z 0 -1 WITHSCORES WITHSCORES
ZRANGEBYSCORE z -inf +inf|ZRANGEBYSCORE z -inf +inf WITHSCORES
ZRANGEBYSCORE z 1 3 WITHSCORES LIMIT 0 1|ZRANGEBYSCORE z 50 60 WITHSCORES
ZRANGEBYSCORE no 0 1 WITHSCORES|ZRANGEBYSCORE z a b
ZRANGEBYLEX z - +|ZRANGEBYLEX z [a [c LIMIT 0 1|ZRANGEBYLEX no - +|ZRANGEBYLEX z a b
ZREVRANGE z 0 -1|ZREVRANGE z 0 -1 WITHSCORES|ZREVRANGE no 0 -1 WITHSCORES
ZREVRANGEBYSCORE z +inf -inf|ZREVRANGEBYSCORE z +inf -inf WITHSCORES LIMIT 0 1
ZREVRANGEBYSCORE no 1 0 WITHSCORES
ZREVRANGEBYLEX z + -|ZREVRANGEBYLEX no + -
ZSCORE z a|ZSCORE z b|ZSCORE z c|ZSCORE z d|ZSCORE z e|ZSCORE z f|ZSCORE z g|ZSCORE z h|ZSCORE z i
ZSCORE z no|ZSCORE no a|ZSCORE s a
ZMSCORE z a b no f|ZMSCORE z no|ZMSCORE no a b
ZRANK z a|ZRANK z no|ZRANK no a
ZREVRANK z a|ZREVRANK z no|ZREVRANK no a
ZCARD z|ZCARD no
ZCOUNT z 1 2|ZCOUNT no 1 2|ZCOUNT z a b
ZLEXCOUNT z - +|ZLEXCOUNT no - +
GEODIST g P C|GEODIST g P C km|GEODIST g P no|GEODIST no a b|GEODIST g P C parsec
GEOHASH g P C|GEOHASH g P no|GEOHASH no a b|GEOHASH g
GEOPOS g P|GEOPOS g P no C|GEOPOS g no|GEOPOS no a b|GEOPOS g|GEOPOS no|GEOPOS s a
GEOSEARCH g {AREA}|GEOSEARCH g {AREA} WITHCOORD|GEOSEARCH g {AREA} WITHDIST
GEOSEARCH g {AREA} WITHHASH|GEOSEARCH g {AREA} WITHCOORD WITHDIST WITHHASH
GEOSEARCH g {AREA} ASC COUNT 1 WITHDIST|GEOSEARCH no {AREA}|GEOSEARCH no {AREA} WITHCOORD
GEOSEARCH g FROMMEMBER P BYBOX 400 400 km DESC WITHCOORD|GEOSEARCH g FROMMEMBER no BYRADIUS 1 km
GEOSEARCH g FROMLONLAT 0 0 BYRADIUS 1 m WITHDIST
GEORADIUS_RO g 15 37 200 km|GEORADIUS_RO g 15 37 200 km WITHCOORD WITHDIST WITHHASH
GEORADIUS_RO g 15 37 200 km WITHCOORD|GEORADIUS_RO g 15 37 1 m WITHCOORD
GEORADIUS_RO no 15 37 200 km WITHDIST
GEORADIUSBYMEMBER_RO g P 200 km|GEORADIUSBYMEMBER_RO g P 200 km WITHCOORD WITHDIST
GEORADIUSBYMEMBER_RO no P 200 km|GEORADIUSBYMEMBER_RO g no 200 km
XLEN x|XLEN no
XRANGE x - +|XRANGE x - + COUNT 1|XRANGE x - + COUNT 0|XRANGE x 5 6|XRANGE no - +
XRANGE no - + COUNT 0|XRANGE x a b
XREVRANGE x + -|XREVRANGE x + - COUNT 1|XREVRANGE x + - COUNT 0|XREVRANGE no + -
"""


def words(line):
    return [b"" if word == '""' else word.encode() for word in line.split()]


COMMANDS = [words(form) for line in FORMS.strip().splitlines() for form in line.split("|")]


@pytest.fixture(scope="module")
def tool(tmp_path_factory):
    tool = RespTool(tmp_path_factory.mktemp("resp_tool"))
    yield tool
    tool.close()


def test_every_cached_read_has_forms(tool):
    cached = {name for name, row in tool.table().items() if row["class"] == "CACHED_READ"}
    assert cached == {command[0].decode().lower() for command in COMMANDS}


def test_a_downgraded_reply_is_the_servers_own_reply_in_resp2(tool, reference):
    with reference.client(2) as resp2, reference.client(3) as resp3:
        for line in SETUP.strip().splitlines():
            resp2.ok(*words(line))
        wrong, n_changed = [], 0
        for command in COMMANDS:
            in_resp2, in_resp3 = resp2.ask(*command), resp3.ask(*command)
            downgraded = tool.ask("downgrade", in_resp3, *command)
            n_changed += in_resp2 != in_resp3
            if downgraded != in_resp2:
                wrong.append((command, in_resp3, in_resp2, downgraded))
        assert not wrong, "\n".join(
            f"{b' '.join(command)}: RESP3 {three!r}, RESP2 {two!r}, downgraded {ours!r}"
            for command, three, two, ours in wrong)
        # A server that answers alike in both would prove nothing.
        assert n_changed > 50


def test_other_replies_are_downgraded_as_the_server_words_them(tool, reference):
    """What the cached reads do not show: verbatims, big numbers, booleans, sets, attributes."""
    with reference.client(2) as resp2, reference.client(3) as resp3:
        for kind in ("string", "integer", "double", "null", "array", "set", "map", "true", "false",
                     "verbatim", "bignum"):
            in_resp2 = resp2.ask("DEBUG", "PROTOCOL", kind)
            in_resp3 = resp3.ask("DEBUG", "PROTOCOL", kind)
            assert tool.ask("downgrade", in_resp3, "DEBUG") == in_resp2, kind
        resp3.send(b"*3\r\n$5\r\nDEBUG\r\n$8\r\nPROTOCOL\r\n$6\r\nattrib\r\n")
        assert tool.ask("downgrade", resp3.read(), "DEBUG") == resp2.ask("DEBUG", "PROTOCOL",
                                                                        "attrib")
