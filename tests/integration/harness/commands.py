"""Generated commands: forms of every command that handles keys, and how to compare its replies.

A form is a small pattern:  WORD as it is;  <kind> something generated;  [x] half of the time;
(x|y) one of them;  {x}+ one to four times. Keys are mostly of the right type, sometimes of another
or missing. wrong() spoils a command: an argument more, less, or replaced.
"""

import hashlib
import re
import time

TOKEN = re.compile(r"\[|\]|\(|\)|\{|\}\+?|\||<\w+>|[^\s\[\](){}|<>]+")

SCRIPTS = {
    "get": "return redis.call('GET', KEYS[1])",
    "set": "return redis.call('SET', KEYS[1], ARGV[1])",
    "types": "return {1, 'a', {2, 'b'}, false, 3.7}",
    "scores": "return redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')",
    "push": "redis.call('RPUSH', KEYS[1], ARGV[1]) return redis.call('LLEN', KEYS[1])",
    "fail": "return redis.error_reply('MY own words')",
    "broken": "return nope(",
    "status": "return redis.status_reply('FINE')",
}
SHAS = {name: hashlib.sha1(text.encode()).hexdigest() for name, text in SCRIPTS.items()}
LIBRARY = """#!lua name=nctest
redis.register_function('ncset', function(keys, args)
  return redis.call('SET', keys[1], args[1]) end)
redis.register_function{function_name='ncget', flags={'no-writes'},
  callback=function(keys) return redis.call('GET', keys[1]) end}
"""

CACHED_READS = """
GET <str>
STRLEN <str>
GETRANGE <str> <i> <i>
SUBSTR <str> <i> <i>
GETBIT <str> <bit>
BITCOUNT <str> [<i> <i> [(BYTE|BIT)]]
BITPOS <str> (0|1) [<i> [<i> [(BYTE|BIT)]]]
BITFIELD_RO <str> {GET <bits> <bit>}+
TYPE <any>
EXPIRETIME <any>
PEXPIRETIME <any>
HGET <hash> <f>
HMGET <hash> {<f>}+
HGETALL <hash>
HKEYS <hash>
HVALS <hash>
HLEN <hash>
HEXISTS <hash> <f>
HSTRLEN <hash> <f>
LRANGE <list> <i> <i>
LLEN <list>
LINDEX <list> <i>
LPOS <list> <m> [RANK <i>] [COUNT <n>] [MAXLEN <n>]
SMEMBERS <set>
SCARD <set>
SISMEMBER <set> <m>
SMISMEMBER <set> {<m>}+
ZRANGE <zset> <i> <i> [REV] [WITHSCORES]
ZRANGE <zset> <sc> <sc> BYSCORE [REV] [LIMIT <i> <i>] [WITHSCORES]
ZRANGE <zset> <lx> <lx> BYLEX [REV] [LIMIT <i> <i>]
ZRANGEBYSCORE <zset> <sc> <sc> [WITHSCORES] [LIMIT <i> <i>]
ZRANGEBYLEX <zset> <lx> <lx> [LIMIT <i> <i>]
ZREVRANGE <zset> <i> <i> [WITHSCORES]
ZREVRANGEBYSCORE <zset> <sc> <sc> [WITHSCORES] [LIMIT <i> <i>]
ZREVRANGEBYLEX <zset> <lx> <lx> [LIMIT <i> <i>]
ZSCORE <zset> <m>
ZMSCORE <zset> {<m>}+
ZRANK <zset> <m>
ZREVRANK <zset> <m>
ZCARD <zset>
ZCOUNT <zset> <sc> <sc>
ZLEXCOUNT <zset> <lx> <lx>
GEODIST <geo> <p> <p> [(m|km|ft|mi|xx)]
GEOHASH <geo> {<p>}+
GEOPOS <geo> {<p>}+
GEOSEARCH <geo> (FROMMEMBER <p>|FROMLONLAT <lon> <lat>) (BYRADIUS <r> (m|km)|BYBOX <r> <r> km) [(ASC|DESC)] [COUNT <n> [ANY]] [WITHCOORD] [WITHDIST] [WITHHASH]
GEORADIUS_RO <geo> <lon> <lat> <r> (m|km) [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT <n>] [(ASC|DESC)]
GEORADIUSBYMEMBER_RO <geo> <p> <r> (m|km) [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT <n>] [(ASC|DESC)]
XLEN <stream>
XRANGE <stream> <idr> <idr> [COUNT <n>]
XREVRANGE <stream> <idr> <idr> [COUNT <n>]
"""

READS = """
TTL <any>
PTTL <any>
SRANDMEMBER <set> [<i>]
HRANDFIELD <hash> [<i> [WITHVALUES]]
ZRANDMEMBER <zset> [<i> [WITHSCORES]]
HSCAN <hash> 0 [MATCH <pat>] COUNT 1000
SSCAN <set> 0 [MATCH <pat>] COUNT 1000
ZSCAN <zset> 0 [MATCH <pat>] COUNT 1000
DUMP <any>
OBJECT ENCODING <any>
OBJECT FREQ <any>
OBJECT IDLETIME <any>
OBJECT REFCOUNT <any>
MEMORY USAGE <any> [SAMPLES <n>]
XPENDING <stream> <grp> [[IDLE (0|9000000)] - + <n> [<con>]]
XINFO STREAM <stream> [FULL [COUNT <n>]]
XINFO GROUPS <stream>
XINFO CONSUMERS <stream> <grp>
SORT_RO <list> [LIMIT <i> <i>] [(ASC|DESC)] ALPHA
SORT_RO <list> BY nothing_* [GET none_*] [GET #]
"""

WRITES = """
SET <str> <v> [(NX|XX)] [GET] [(EX <ttl>|PX <ttlms>|EXAT <at>|PXAT <atms>|KEEPTTL)]
SETNX <str> <v>
SETEX <str> <ttl> <v>
PSETEX <str> <ttlms> <v>
GETSET <str> <v>
GETDEL <str>
GETEX <str> [(EX <ttl>|PX <ttlms>|EXAT <at>|PXAT <atms>|PERSIST)]
APPEND <str> <v>
SETRANGE <str> <bit> <v>
INCR <num>
INCRBY <num> <i>
INCRBYFLOAT <num> <fl>
DECR <num>
DECRBY <num> <i>
SETBIT <str> <bit> (0|1|2)
BITFIELD <str> {(GET <bits> <bit>|SET <bits> <bit> <i>|OVERFLOW (WRAP|SAT|FAIL) INCRBY <bits> <bit> <i>)}+
EXPIRE <any> <ttl> [(NX|XX|GT|LT)]
PEXPIRE <any> <ttlms> [(NX|XX|GT|LT)]
EXPIREAT <any> <at> [(NX|XX|GT|LT)]
PEXPIREAT <any> <atms> [(NX|XX|GT|LT)]
PERSIST <any>
RESTORE <any> (0|<ttlms>) <dump> [REPLACE] [IDLETIME <n>]
RESTORE-ASKING <any> (0|<ttlms>) <dump> [REPLACE]
HSET <hash> {<f> <v>}+
HMSET <hash> {<f> <v>}+
HSETNX <hash> <f> <v>
HDEL <hash> {<f>}+
HINCRBY <hash> <f> <i>
HINCRBYFLOAT <hash> <f> <fl>
LPUSH <list> {<m>}+
LPUSHX <list> {<m>}+
RPUSH <list> {<m>}+
RPUSHX <list> {<m>}+
LPOP <list> [<n>]
RPOP <list> [<n>]
LSET <list> <i> <m>
LREM <list> <i> <m>
LTRIM <list> <i> <i>
LINSERT <list> (BEFORE|AFTER) <m> <m>
SADD <set> {<m>}+
SREM <set> {<m>}+
SPOP <set> [<n>]
ZADD <zset> [(NX|XX)] [CH] {<fl> <m>}+
ZADD <zset> [XX] [(GT|LT)] [CH] INCR <fl> <m>
ZINCRBY <zset> <fl> <m>
ZREM <zset> {<m>}+
ZPOPMIN <zset> [<n>]
ZPOPMAX <zset> [<n>]
ZREMRANGEBYLEX <zset> <lx> <lx>
ZREMRANGEBYRANK <zset> <i> <i>
ZREMRANGEBYSCORE <zset> <sc> <sc>
GEOADD <geo> [(NX|XX)] [CH] {<lon> <lat> <p>}+
PFADD <hll> {<m>}+
XADD <stream> [NOMKSTREAM] [(MAXLEN|MAXLEN =|MAXLEN ~) <n>] <id> {<f> <v>}+
XDEL <stream> {<id>}+
XTRIM <stream> (MAXLEN <n>|MINID <id>|MAXLEN ~ <n> LIMIT <n>)
XSETID <stream> <id> [ENTRIESADDED <n> MAXDELETEDID <id>]
XACK <stream> <grp> {<id>}+
XCLAIM <stream> <grp> <con> 0 {<id>}+ [IDLE <n>] [RETRYCOUNT <n>] [FORCE] [JUSTID]
XAUTOCLAIM <stream> <grp> <con> (0|90000) <id> [COUNT <n>] [JUSTID]
XGROUP CREATE <stream> <grp> (<id>|$) [MKSTREAM]
XGROUP CREATECONSUMER <stream> <grp> <con>
XGROUP DELCONSUMER <stream> <grp> <con>
XGROUP DESTROY <stream> <grp>
XGROUP SETID <stream> <grp> (<id>|$)
"""

SPLIT_READS = """
MGET {<str>}+
EXISTS {<any>}+
TOUCH {<any>}+
"""

SPLIT_WRITES = """
DEL {<any>}+
UNLINK {<any>}+
MSET {<str> <v>}+
"""

MULTI_READS = """
SINTER {<set>}+
SUNION {<set>}+
SDIFF {<set>}+
SINTERCARD 2 <set> <set> [LIMIT <n>]
ZINTER 2 <zset> <zset> [WEIGHTS <fl> <fl>] [AGGREGATE (SUM|MIN|MAX)] [WITHSCORES]
ZUNION 2 <zset> <set> [WEIGHTS <fl> <fl>] [AGGREGATE (SUM|MIN|MAX)] [WITHSCORES]
ZDIFF 2 <zset> <zset> [WITHSCORES]
ZINTERCARD 2 <zset> <zset> [LIMIT <n>]
LCS <short> <short> [(LEN|IDX [MINMATCHLEN <n>] [WITHMATCHLEN])]
PFCOUNT {<hll>}+
"""

MULTI_WRITES = """
MSETNX {<str> <v>}+
RENAME <any> <any>
RENAMENX <any> <any>
COPY <any> <any> [REPLACE]
SMOVE <set> <set> <m>
LMOVE <list> <list> (LEFT|RIGHT) (LEFT|RIGHT)
RPOPLPUSH <list> <list>
LMPOP 2 <list> <list> (LEFT|RIGHT) [COUNT <n>]
ZMPOP 2 <zset> <zset> (MIN|MAX) [COUNT <n>]
SINTERSTORE <dst> {<set>}+
SUNIONSTORE <dst> {<set>}+
SDIFFSTORE <dst> {<set>}+
ZINTERSTORE <dst> 2 <zset> <set> [WEIGHTS <fl> <fl>] [AGGREGATE (SUM|MIN|MAX)]
ZUNIONSTORE <dst> 2 <zset> <zset> [WEIGHTS <fl> <fl>] [AGGREGATE (SUM|MIN|MAX)]
ZDIFFSTORE <dst> 2 <zset> <zset>
ZRANGESTORE <dst> <zset> <i> <i> [REV]
ZRANGESTORE <dst> <zset> <sc> <sc> BYSCORE [LIMIT <i> <i>]
GEOSEARCHSTORE <dst> <geo> FROMLONLAT <lon> <lat> BYRADIUS <r> km [(ASC|DESC)] [COUNT <n>] [STOREDIST]
GEORADIUS <geo> <lon> <lat> <r> km [(ASC|DESC)] [COUNT <n>] [(STORE|STOREDIST) <dst>]
GEORADIUSBYMEMBER <geo> <p> <r> km [(ASC|DESC)] [(STORE|STOREDIST) <dst>]
SORT <list> [LIMIT <i> <i>] [(ASC|DESC)] ALPHA [STORE <dst>]
SORT <ints> [LIMIT <i> <i>] [(ASC|DESC)] [STORE <dst>]
SORT <list> BY nothing_* [GET none_*] [GET #]
BITOP (AND|OR|XOR|NOT) <dst> {<str>}+
PFMERGE <hll> {<hll>}+
"""

SCRIPT_FORMS = """
EVAL <script_get> 1 <str>
EVAL <script_set> 1 <str> <v>
EVAL <script_types> 0
EVAL <script_scores> 1 <zset>
EVAL <script_push> 1 <list> <m>
EVAL <script_fail> 0
EVAL <script_broken> 0
EVAL <script_status> 0
EVALSHA <sha_get> 1 <str>
EVALSHA <sha_set> 1 <str> <v>
EVALSHA <sha_unknown> 1 <str>
FCALL ncset 1 <str> <v>
FCALL ncget 1 <str>
FCALL nofunction 0
"""

SCRIPT_READS = """
EVAL_RO <script_get> 1 <str>
EVAL_RO <script_set> 1 <str> <v>
EVAL_RO <script_scores> 1 <zset>
EVALSHA_RO <sha_get> 1 <str>
EVALSHA_RO <sha_unknown> 0
FCALL_RO ncget 1 <str>
FCALL_RO ncset 1 <str> <v>
"""

CLASSES = {
    "CLASS_CACHED_READ": CACHED_READS, "CLASS_READ": READS, "CLASS_WRITE": WRITES,
    "CLASS_SPLIT_READ": SPLIT_READS, "CLASS_SPLIT_WRITE": SPLIT_WRITES,
    "CLASS_MULTI_READ": MULTI_READS, "CLASS_MULTI_WRITE": MULTI_WRITES,
    "CLASS_SCRIPT": SCRIPT_FORMS, "CLASS_SCRIPT_READ": SCRIPT_READS,
}
READING = {"CLASS_CACHED_READ", "CLASS_READ", "CLASS_SPLIT_READ", "CLASS_MULTI_READ",
           "CLASS_SCRIPT_READ"}
ONE_SLOT = {"CLASS_MULTI_READ", "CLASS_MULTI_WRITE", "CLASS_SCRIPT", "CLASS_SCRIPT_READ"}
CONTAINERS = {"OBJECT", "MEMORY", "XINFO", "XGROUP"}

# How replies are compared where not byte by byte (test_differential.py explains each).
COMPARE = {
    "SMEMBERS": "unordered", "HGETALL": "unordered", "HKEYS": "unordered", "HVALS": "unordered",
    "SINTER": "unordered", "SUNION": "unordered", "SDIFF": "unordered",
    "SORT": "unordered", "SORT_RO": "unordered",  # a pattern without * leaves a set unsorted
    "EXPIRETIME": "near", "PEXPIRETIME": "near", "TTL": "near", "PTTL": "near",
    "SRANDMEMBER": "random", "HRANDFIELD": "random", "ZRANDMEMBER": "random", "SPOP": "random",
    "HSCAN": "scan", "SSCAN": "scan", "ZSCAN": "scan",
    "DUMP": "backend", "OBJECT IDLETIME": "number", "MEMORY USAGE": "number",
    "XPENDING": "shape", "XINFO CONSUMERS": "shape", "XINFO STREAM": "shape",
}
# A cluster refuses patterns; RESTORE-ASKING is for its nodes among themselves.
NOT_ON_A_CLUSTER = ("RESTORE-ASKING", "SORT_RO <list> BY", "SORT <list> BY")

N_KEYS = {"str": 7, "num": 3, "hash": 3, "list": 3, "set": 3, "ints": 2, "zset": 3, "geo": 2,
          "stream": 2, "hll": 2, "short": 3, "dst": 3, "missing": 3}
MEMBERS = [b"a", b"b", b"c", b"alpha", b"beta", b"1", b"2", b"30", b"x" * 70, b"", b"\x00\r\n\xff"]
PLACES = [b"Palermo", b"Catania", b"Agrigento", b"nowhere"]
WRONG_ARGUMENTS = [b"", b"x", b"-1", b"0", b"90000", b"1.5", b"99999999999999999999", b"WITHSCORES",
                   b"\x00\xff", b"(", b"nan"]


def command_name(args):
    """As COMPARE and the command table spell it, in capitals."""
    name = args[0].decode().upper()
    if name in CONTAINERS and len(args) > 1:
        name += " " + args[1].decode(errors="replace").upper()
    return name


class Form:
    """One line of the lists above."""

    def __init__(self, text, command_class):
        self.text = text
        self.command_class = command_class
        self.tokens = TOKEN.findall(text)
        words = text.split()
        self.name = " ".join(words[:2]) if words[0] in CONTAINERS else words[0]
        self.is_read = command_class in READING
        self.needs_one_slot = command_class in ONE_SLOT
        self.compare = COMPARE.get(self.name, "exact")


def all_forms(for_cluster=False):
    forms = [Form(line, command_class) for command_class, lines in CLASSES.items()
             for line in lines.strip().splitlines()]
    if for_cluster:
        forms = [form for form in forms if not form.text.startswith(NOT_ON_A_CLUSTER)]
    return forms


class Generator:
    """Commands from one seeded source. prefixes: families of keys; one_slot: the families whose
    keys lie in one slot, for commands that need that."""

    def __init__(self, rng, prefixes=(b"",), one_slot=None, dumps=(b"garbage",)):
        self.rng = rng
        self.prefixes = list(prefixes)
        self.one_slot = list(one_slot or prefixes)
        self.dumps = list(dumps)
        self._strict = False
        self._families = self.prefixes

    # Keys

    def key(self, kind, number=None):
        number = self.rng.randrange(N_KEYS[kind]) if number is None else number
        return self.rng.choice(self._families) + b"%s%d" % (kind.encode(), number)

    def _key_for(self, kind):
        chance = 0 if self._strict else self.rng.random()
        if kind == "any":
            return self.key(self.rng.choice(list(N_KEYS)))
        if chance > 0.92:
            return self.key("missing")
        if chance > 0.84:
            return self.key(self.rng.choice(["hash", "list", "set", "zset", "stream"]))
        return self.key(kind)

    # Arguments

    def value(self):
        rng = self.rng
        return rng.choice([
            b"", b"hello", b"12", b"-7", b"3.25", b"\x00\x01\r\n$5\r\n\xff", "käse".encode(),
            bytes(rng.randrange(256) for _ in range(20)), b"v" * rng.randrange(1, 300),
            b"w" * 3000])

    def _integer(self):
        rng = self.rng
        if self._strict or rng.random() < 0.9:
            return str(rng.choice([0, 1, 2, 3, 5, 9, -1, -2, -3, -100, 100])).encode()
        return rng.choice([b"abc", b"", b"1.5", b"99999999999999999999", b"9223372036854775807",
                           b" 1", b"+1", b"01"])

    def _float(self):
        rng = self.rng
        if self._strict or rng.random() < 0.92:
            return rng.choice([b"1", b"2.5", b"-3", b"0", b"1e3", b"0.1", b"1e20", b"1.5e300", b"-0"
                               b".75", b"3.0000000000000004"])
        return rng.choice([b"inf", b"-inf", b"nan", b"abc", b""])

    def _generate(self, kind):
        rng = self.rng
        if kind in N_KEYS or kind == "any":
            return self._key_for(kind)
        if kind.startswith("script_"):
            return SCRIPTS[kind[7:]].encode()
        if kind.startswith("sha_"):
            sha = SHAS.get(kind[4:], "0" * 40)
            return (sha.upper() if rng.random() < 0.2 else sha).encode()
        return {
            "i": self._integer, "fl": self._float, "v": self.value,
            "n": lambda: rng.choice([b"0", b"1", b"2", b"3", b"10"]) if self._strict
            or rng.random() < 0.9 else rng.choice([b"-1", b"abc", b"99999999999999999999"]),
            "bit": lambda: rng.choice([b"0", b"1", b"7", b"8", b"100"]) if self._strict
            or rng.random() < 0.9 else rng.choice([b"-1", b"abc", b"4294967296", b"#2"]),
            "bits": lambda: rng.choice([b"u8", b"i5", b"u63", b"i64", b"u1"]) if self._strict
            or rng.random() < 0.9 else rng.choice([b"u64", b"i65", b"x"]),
            "f": lambda: rng.choice([b"f1", b"f2", b"f3", b"count", b"", b"nofield"]),
            "m": lambda: rng.choice(MEMBERS),
            "p": lambda: rng.choice(PLACES[:3] if self._strict else PLACES),
            "lon": lambda: rng.choice([b"13.361389", b"15.087269", b"13.5", b"0"]) if self._strict
            or rng.random() < 0.95 else b"200",
            "lat": lambda: rng.choice([b"38.115556", b"37.502669", b"37.2", b"0"]) if self._strict
            or rng.random() < 0.95 else b"x",
            "r": lambda: rng.choice([b"100", b"200", b"500.5", b"10000"]) if self._strict
            or rng.random() < 0.95 else b"-1",
            "sc": lambda: rng.choice([b"-inf", b"+inf", b"0", b"(1", b"2.5", b"(1e3", b"100"])
            if self._strict or rng.random() < 0.95 else b"[x",
            "lx": lambda: rng.choice([b"-", b"+", b"[a", b"(a", b"[b", b"(c", b"[zz"])
            if self._strict or rng.random() < 0.95 else b"a",
            "idr": lambda: rng.choice([b"-", b"+", b"1-1", b"2", b"(1-1", b"50-0", b"100-3"])
            if self._strict or rng.random() < 0.95 else b"x-1",
            "id": lambda: b"%d-%d" % (rng.randrange(1, 500), rng.randrange(3))
            if self._strict or rng.random() < 0.85 else rng.choice(
                [b"0-0", b"0", b"7", b"600-*", b"x", b"1-1"]),
            "grp": lambda: rng.choice([b"g1", b"g1", b"g2"]),
            "con": lambda: rng.choice([b"c1", b"c2"]),
            "pat": lambda: rng.choice([b"*", b"a*", b"f?", b"[bc]*", b"none"]),
            # Long, and all different: neither expires in a run, nor compares differently on a
            # server that was asked a millisecond later.
            "ttl": lambda: b"%d" % rng.randrange(1000, 900000) if self._strict
            or rng.random() < 0.9 else rng.choice([b"0", b"-1", b"abc", b"9223372036854775807"]),
            "ttlms": lambda: b"%d" % rng.randrange(1000000, 900000000) if self._strict
            or rng.random() < 0.9 else rng.choice([b"0", b"-1", b"abc", b"9223372036854775807"]),
            "at": lambda: b"%d" % (time.time() + rng.randrange(1000, 900000)) if self._strict
            or rng.random() < 0.9 else rng.choice([b"1", b"0", b"-1", b"abc"]),
            "atms": lambda: b"%d" % (time.time() * 1000 + rng.randrange(1000000, 900000000))
            if self._strict or rng.random() < 0.9 else rng.choice([b"1", b"0", b"-1", b"abc"]),
            "dump": lambda: rng.choice(self.dumps),
        }[kind]()

    # Forms

    def _expand(self, tokens, at, end):
        """Arguments for tokens[at:] up to one of the end tokens; (alternatives, where it ended)."""
        alternatives, arguments = [], []
        while at < len(tokens) and tokens[at] not in end:
            token = tokens[at]
            if token == "|":
                alternatives.append(arguments)
                arguments = []
                at += 1
            elif token == "[":
                inner, at = self._expand(tokens, at + 1, ("]",))
                at += 1
                if self.rng.random() < 0.5:
                    arguments += self.rng.choice(inner)
            elif token == "(":
                inner, at = self._expand(tokens, at + 1, (")",))
                at += 1
                arguments += self.rng.choice(inner)
            elif token == "{":
                start = at + 1
                for _ in range(self.rng.choice((1, 1, 2, 3, 4))):
                    inner, at = self._expand(tokens, start, ("}+",))
                    arguments += inner[0]
                at += 1
            elif token.startswith("<"):
                arguments.append(self._generate(token[1:-1]))
                at += 1
            else:
                arguments.append(token.encode())
                at += 1
        return alternatives + [arguments], at

    def make(self, form, strict=False):
        """A command of this form. strict: keys of the right type, arguments that parse."""
        self._strict = strict
        self._families = self.one_slot if form.needs_one_slot else self.prefixes
        arguments = self._expand(form.tokens, 0, ())[0][0]
        if self.rng.random() < 0.1:
            arguments[0] = arguments[0].lower()
        return arguments

    def wrong(self, arguments):
        """The same, spoilt. The key of a single-key command stays a key."""
        spoilt = list(arguments)
        how = self.rng.random()
        if how < 0.4 and len(spoilt) > 1:
            spoilt.pop()
        elif how < 0.7:
            spoilt.append(self.rng.choice(WRONG_ARGUMENTS))
        elif len(spoilt) > 2:
            spoilt[self.rng.randrange(2, len(spoilt))] = self.rng.choice(WRONG_ARGUMENTS)
        return spoilt

    # State

    def populate(self, prefix, kinds=None):
        """Commands that bring the keys of one family to a rich state, whatever they were."""
        commands = []

        def add(kind, number, *args):
            command, *rest = args
            commands.append([command.encode(), prefix + b"%s%d" % (kind.encode(), number)] + [
                each if isinstance(each, bytes) else str(each).encode() for each in rest])

        kinds = kinds or list(N_KEYS)
        for kind in kinds:
            for number in range(N_KEYS[kind]):
                add(kind, number, "DEL")
        strings = [b"hello world", b"", b"42", b"\x00\r\n\xff" * 9, b"text " * 60, b"B" * 20000,
                   b"L" * 700000]
        for number, value in enumerate(strings if "str" in kinds else ()):
            add("str", number, "SET", value)
        for number, value in enumerate((b"10", b"-3", b"3.5") if "num" in kinds else ()):
            add("num", number, "SET", value)
        for number, value in enumerate((b"abcde", b"xbcdy", b"1234") if "short" in kinds else ()):
            add("short", number, "SET", value)
        if "hash" in kinds:
            add("hash", 0, "HSET", "f1", "v1", "f2", "v2", "count", "5")
            add("hash", 1, "HSET", "f1", b"x" * 5000, "f3", "", "", "empty field")
            add("hash", 2, "HSET", *[item for number in range(40) for item in (
                f"f{number}", number)])
        if "list" in kinds:
            add("list", 0, "RPUSH", *MEMBERS)
            add("list", 1, "RPUSH", "a", "b", "a", "c", "a")
            add("list", 2, "RPUSH", *range(60))
        if "set" in kinds:
            for number in range(N_KEYS["set"]):
                add("set", number, "SADD", *MEMBERS[number:number + 7])
        if "ints" in kinds:
            add("ints", 0, "SADD", 5, 1, 9, 30)
            add("ints", 1, "SADD", *range(20))
        if "zset" in kinds:
            add("zset", 0, "ZADD", 1, "a", 2.5, "b", "inf", "c", 1e20, "alpha", 0.1, "beta")
            add("zset", 1, "ZADD", 0, "a", 0, "b", 0, "c", 0, "zz", 0, "1")
            add("zset", 2, "ZADD", *[item for number in range(30) for item in (
                number / 3, f"m{number}")])
        if "geo" in kinds:
            add("geo", 0, "GEOADD", 13.361389, 38.115556, "Palermo", 15.087269, 37.502669,
                "Catania", 13.583333, 37.316667, "Agrigento")
            add("geo", 1, "GEOADD", 13.361389, 38.115556, "Palermo")
        if "stream" in kinds:
            for number in (1, 2, 50, 100):
                add("stream", 0, "XADD", f"{number}-1", "f1", f"v{number}", "f2", "")
            add("stream", 1, "XADD", "1-1", "f", "v")
            commands.append([b"XGROUP", b"CREATE", prefix + b"stream0", b"g1", b"0"])
            add("stream", 0, "XCLAIM", "g1", "c1", "0", "1-1", "2-1", "FORCE", "JUSTID")
        if "hll" in kinds:
            add("hll", 0, "PFADD", "a", "b", "c")
            add("hll", 1, "PFADD", *range(500))
        return commands
