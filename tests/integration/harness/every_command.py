"""Cases for every command and subcommand of Redis 7.0: see test_every_command.py.

One line per command, `name: case | case | ...`; a case is a command without its own name. Words
are apart by spaces, "" is an empty one, @x is the key {t}x, and @@x a key in a slot of its own.
`A & B => n` sends several commands (with their names) at once and expects n replies. A command
that is missing here is an error of the test.
"""

CASES = """
get: @str | @missing | @num
strlen: @str | @missing
getrange: @str 1 3 | @str 0 -1 | @missing 0 1 | @str a b
substr: @str 1 3
getbit: @str 3 | @str -1
bitcount: @str | @str 0 1 | @str 0 10 BIT | @str 0
bitpos: @str 1 | @str 0 1 3 | @str 2
bitfield_ro: @str GET u8 0 | @str SET u8 0 1
type: @str | @list | @hash | @stream | @missing
expiretime: @ttl | @str | @missing
pexpiretime: @ttl | @str | @missing
hget: @hash f1 | @hash nope | @missing f1
hmget: @hash f1 nope f2 | @missing f1
hgetall: @hash | @missing
hkeys: @hash | @missing
hvals: @hash | @missing
hlen: @hash | @missing
hexists: @hash f1 | @hash nope
hstrlen: @hash f1 | @hash nope
lrange: @list 0 -1 | @list 1 2 | @missing 0 -1 | @list a 1
llen: @list | @missing
lindex: @list 0 | @list -1 | @list 99
lpos: @list b | @list b RANK -1 COUNT 0 | @list nope | @list b RANK 0
smembers: @set | @missing
scard: @set | @missing
sismember: @set a | @set nope
smismember: @set a nope b
zrange: @zset 0 -1 | @zset 0 -1 WITHSCORES | @zset (1 3 BYSCORE LIMIT 0 1 | @zset - + BYLEX | @zset 0 1 LIMIT 0 1
zrangebyscore: @zset -inf +inf WITHSCORES | @zset a b
zrangebylex: @zset - + | @zset a b
zrevrange: @zset 0 -1 WITHSCORES
zrevrangebyscore: @zset +inf -inf WITHSCORES LIMIT 0 2
zrevrangebylex: @zset + -
zscore: @zset a | @zset nope | @missing a
zmscore: @zset a nope
zrank: @zset b | @zset nope
zrevrank: @zset b | @zset nope
zcard: @zset | @missing
zcount: @zset 1 2 | @zset a b
zlexcount: @zset - +
geodist: @geo Palermo Catania | @geo Palermo Catania km | @geo Palermo nope | @geo Palermo Catania xx
geohash: @geo Palermo nope
geopos: @geo Palermo nope
geosearch: @geo FROMMEMBER Palermo BYRADIUS 200 km ASC WITHCOORD WITHDIST WITHHASH | @geo FROMLONLAT 15 37 BYBOX 400 400 km ASC
georadius_ro: @geo 15 37 200 km ASC WITHDIST
georadiusbymember_ro: @geo Palermo 200 km ASC WITHCOORD
xlen: @stream | @missing
xrange: @stream - + | @stream - + COUNT 1 | @stream - + COUNT 0 | @stream x y
xrevrange: @stream + - COUNT 2
ttl: @ttl | @str | @missing
pttl: @ttl | @str | @missing
srandmember: @set | @set 2 | @missing
hrandfield: @hash | @hash 2 WITHVALUES | @missing
zrandmember: @zset | @zset 2 WITHSCORES
hscan: @hash 0 COUNT 100 | @hash x
sscan: @set 0 COUNT 100 | @missing 0
zscan: @zset 0 MATCH * COUNT 100
dump: @str | @missing
object: NOPE | NOPE x | HELP x
object|encoding: @str | @num | @missing
object|freq: @str
object|idletime: @str | @missing
object|refcount: @str | @missing
object|help:
memory: NOPE
memory|usage: @str | @missing | @str SAMPLES 2 | @str NOPE
memory|doctor:
memory|help:
memory|malloc-stats:
memory|purge:
memory|stats:
xpending: @stream g | @stream g - + 10 | @stream nope
xinfo: NOPE
xinfo|stream: @stream | @stream FULL | @missing
xinfo|groups: @stream | @missing
xinfo|consumers: @stream g | @stream nope
xinfo|help:
sort_ro: @list ALPHA | @list BY w_* GET #
set: @str v | @str w GET | @str x NX | @new y XX | @str z EX 1000 | @str v EX 0 | @str v FOO
setnx: @str v | @new v
setex: @str 1000 v | @str 0 v | @str x v
psetex: @str 1000000 v | @str -1 v
getset: @str v | @new v
getdel: @str | @missing
getex: @str | @str EX 1000 | @str PERSIST | @str FOO
append: @str xyz | @new abc
setrange: @str 2 XX | @new 3 a | @str -1 x
incr: @num | @new | @str
incrby: @num 5 | @num x
incrbyfloat: @num 1.5 | @num x
decr: @num | @new
decrby: @num 3
setbit: @str 7 1 | @str 7 2
bitfield: @str GET u8 0 SET u8 0 65 INCRBY i5 100 1 | @str OVERFLOW FAIL INCRBY u2 0 3 | @str FOO
expire: @str 1000 | @missing 1000 | @str 1000 NX | @str x | @str 1000 FOO
pexpire: @str 1000000 | @missing 1000
expireat: @str 4000000000 | @str 4000000000 GT
pexpireat: @str 4000000000000
persist: @ttl | @str
restore: @new 0 garbage | @str 0 garbage
restore-asking: @new 0 garbage
hset: @hash f1 v f9 w | @new f v | @hash f1
hmset: @hash f1 v f9 w | @hash f1
hsetnx: @hash f1 v | @hash f8 v
hdel: @hash f1 nope
hincrby: @hash count 2 | @hash f1 1
hincrbyfloat: @hash count 2.5 | @hash f1 1
lpush: @list x y | @new a
lpushx: @list x | @missing x
rpush: @list x y
rpushx: @list x | @missing x
lpop: @list | @list 2 | @missing | @missing 2 | @list -1
rpop: @list | @list 2 | @missing
lset: @list 0 x | @list 99 x | @missing 0 x
lrem: @list 0 a
ltrim: @list 1 2
linsert: @list BEFORE b x | @list AFTER nope x | @list FOO b x
sadd: @set x y a
srem: @set a nope
spop: @one | @missing | @missing 2
zadd: @zset 5 e | @zset NX 6 a | @zset INCR 1 a | @zset CH XX 7 a | @zset NX XX 1 a | @zset x a
zincrby: @zset 2 a | @zset x a
zrem: @zset a nope
zpopmin: @zset | @zset 2 | @missing
zpopmax: @zset | @missing
zremrangebylex: @zset - [b
zremrangebyrank: @zset 0 0
zremrangebyscore: @zset 1 2
geoadd: @geo 13.5 37.3 Agrigento | @geo 200 1 x
pfadd: @hll a x y | @new a
xadd: @stream 9-1 f v | @stream 9-1 f v | @stream NOMKSTREAM MAXLEN 2 10-1 f v | @missing NOMKSTREAM * f v | @stream x f v
xdel: @stream 1-1 99-1
xtrim: @stream MAXLEN 1 | @stream FOO 1
xsetid: @stream 50-1 | @stream 0-1
xack: @stream g 1-1 99-1
xclaim: @stream g c2 0 1-1 JUSTID
xautoclaim: @stream g c2 0 0 JUSTID
xgroup: NOPE
xgroup|create: @stream g2 $ | @stream g $ | @missing g $ | @new g $ MKSTREAM
xgroup|createconsumer: @stream g c9 | @stream g c9
xgroup|delconsumer: @stream g c1 | @stream nope c
xgroup|destroy: @stream g | @stream g
xgroup|setid: @stream g 0 | @stream nope 0
xgroup|help:
mget: @str @missing @num @str | @list | @@a @@b
exists: @str @str @missing | @@a @@b
touch: @str @missing | @@a @@b
del: @str @missing | @@a @@b
unlink: @num @missing | @@a @@b
mset: @a 1 @b 2 | @@a 1 @@b 2 | @a 1 @b
sinter: @set @set2 | @set @missing | @@a @@b
sunion: @set @set2 | @@a @@b
sdiff: @set @set2 | @@a @@b
sintercard: 2 @set @set2 | 2 @set @set2 LIMIT 1 | 0 @set | 9 @set | 2 @@a @@b
zinter: 2 @zset @zset2 WITHSCORES | 2 @@a @@b
zunion: 2 @zset @zset2 WEIGHTS 2 3 WITHSCORES | 2 @@a @@b
zdiff: 2 @zset @zset2 WITHSCORES | 2 @@a @@b
zintercard: 2 @zset @zset2 | 2 @@a @@b
lcs: @str @str2 | @str @str2 LEN | @str @str2 IDX | @@a @@b
pfcount: @hll | @hll @hll2 | @@a @@b
msetnx: @new1 1 @new2 2 | @new1 1 @new3 3 | @@n1 1 @@n2 2
rename: @str @new | @missing @new | @@a @@b
renamenx: @str @num | @str @new | @@a @@b
copy: @str @new | @str @num | @str @num REPLACE | @missing @x | @@a @@b | @str @new DB 1
smove: @set @set2 a | @set @set2 nope | @@a @@b x
lmove: @list @list2 LEFT RIGHT | @missing @list2 LEFT LEFT | @list @list2 FOO LEFT | @@a @@b LEFT LEFT
rpoplpush: @list @list2 | @@a @@b
lmpop: 2 @missing @list LEFT COUNT 2 | 1 @missing LEFT | 0 @list LEFT | 2 @@a @@b LEFT
zmpop: 2 @missing @zset MIN COUNT 2 | 1 @missing MIN | 2 @@a @@b MIN
sinterstore: @new @set @set2 | @@n @@a @@b
sunionstore: @new @set @set2 | @@n @@a @@b
sdiffstore: @new @set @set2 | @@n @@a @@b
zinterstore: @new 2 @zset @zset2 | @@n 2 @@a @@b
zunionstore: @new 2 @zset @zset2 AGGREGATE MAX | @new 0 @zset | @@n 2 @@a @@b
zdiffstore: @new 2 @zset @zset2 | @@n 2 @@a @@b
zrangestore: @new @zset 0 -1 | @@n @@a 0 -1
geosearchstore: @new @geo FROMMEMBER Palermo BYRADIUS 200 km | @@n @@a FROMLONLAT 1 2 BYRADIUS 1 km
georadius: @geo 15 37 200 km ASC WITHDIST | @geo 15 37 200 km STORE @new | @geo 15 37 200 km WITHDIST STORE @new | @@a 1 2 3 km STORE @@b
georadiusbymember: @geo Palermo 200 km ASC | @geo nope 200 km | @@a x 1 km STORE @@b
bitop: AND @new @str @str2 | NOT @new @str @str2 | FOO @new @str | AND @@n @@a @@b
pfmerge: @new @hll @hll2 | @@n @@a @@b
sort: @list ALPHA | @list ALPHA DESC LIMIT 0 2 | @list | @list BY w_* GET # | @list ALPHA STORE @new | @@a ALPHA STORE @@b
eval: return{1,'a',{KEYS[1]},false,3.7} 1 @str | return(redis.call('GET',KEYS[1])) 1 @str | return(redis.error_reply('MY-words')) 0 | nope( 0 | return 1 | return(1) -1 | return(redis.call('SET',KEYS[1],ARGV[1])) 1 @str v | return(1) 2 @@a @@b
evalsha: ffffffffffffffffffffffffffffffffffffffff 0 | ffffffffffffffffffffffffffffffffffffffff 2 @@a @@b
eval_ro: return(redis.call('GET',KEYS[1])) 1 @str | return(redis.call('SET',KEYS[1],'x')) 1 @str | return(1) 2 @@a @@b
evalsha_ro: ffffffffffffffffffffffffffffffffffffffff 0 | ffffffffffffffffffffffffffffffffffffffff 2 @@a @@b
fcall: ncset 1 @str v | nope 0 | ncset x | ncset 2 @@a @@b
fcall_ro: ncget 1 @str | ncset 1 @str v | ncget 2 @@a @@b
multi: & MULTI & SET @str v & GET @str & LPUSH @str x & EXEC & MULTI & MULTI & NOPE & EXEC & MULTI & EXEC => 11 | & MULTI & SET @@a 1 & SET @@b 2 & EXEC => 4
exec: & EXEC & MULTI & INCR @num & DISCARD & GET @num => 5
discard: & DISCARD & MULTI & DISCARD => 3
watch: @str | @@a @@b | & WATCH @str & SET @str x & MULTI & GET @str & EXEC => 5 | & MULTI & WATCH @a & DISCARD => 3
unwatch:
blpop: @list 0 | @missing 0.01 | @list x | @list -1 | @@a @@b 0.01
brpop: @list 0 | @missing 0.01 | @@a @@b 0.01
blmove: @list @list2 LEFT RIGHT 0 | @missing @list2 LEFT LEFT 0.01 | @@a @@b LEFT LEFT 0.01
brpoplpush: @list @list2 0 | @missing @list2 0.01 | @@a @@b 0.01
blmpop: 0 2 @missing @list LEFT | 0.01 1 @missing LEFT | 0.01 2 @@a @@b LEFT
bzpopmin: @zset 0 | @missing 0.01 | @@a @@b 0.01
bzpopmax: @zset 0 | @missing 0.01 | @@a @@b 0.01
bzmpop: 0 2 @missing @zset MIN | 0.01 1 @missing MIN | 0.01 2 @@a @@b MIN
xread: COUNT 2 STREAMS @stream 0 | STREAMS @stream $ | STREAMS @stream | BLOCK 10 STREAMS @stream $ | STREAMS @@a @@b 0 0
xreadgroup: GROUP g c1 COUNT 1 STREAMS @stream > | GROUP nope c STREAMS @stream > | GROUP g c1 STREAMS @@a @@b > >
subscribe: ch
unsubscribe: | ch
psubscribe: c*
punsubscribe: | c*
ssubscribe: {t}ch
sunsubscribe: | {t}ch
monitor:
wait: 0 0 | 0 x | x 0
hello: | 2 | 3 | 4 | x | 3 SETNAME nam | 3 SETNAME | 3 FOO | 3 AUTH default x
auth: x | default x | nope x | a b c
select: 0 | 1 | x | 99 | -1
reset:
quit:
client: NOPE | NOPE x
client|id:
client|info:
client|list: | TYPE normal | TYPE nope | ID 1000000 | ID x | ID | FOO bar
client|getname: | & CLIENT SETNAME x & CLIENT GETNAME => 2
client|setname: abc | "" | é
client|kill: 1.2.3.4:5 | ID 1000000 | ID x | TYPE nope | ADDR 1.2.3.4:5 SKIPME yes | SKIPME foo | ID 1 FOO | FOO bar | USER nope | LADDR 1.2.3.4:5 | ID 1000000 TYPE replica
client|no-evict: on | off | x
client|reply: on | x | & CLIENT REPLY SKIP & PING & ECHO x => 1 | & CLIENT REPLY OFF & PING & CLIENT REPLY ON => 1
client|pause: x | -1 | 1 FOO | 1 ALL x | 0 | 1 WRITE
client|unpause:
client|unblock: x | 1000000 | 1000000 ERROR | 1000000 FOO
client|getredir:
client|tracking: x | off | on | on | off | on FOO | on BCAST PREFIX a PREFIX ab
client|trackinginfo:
client|caching: yes | x
client|help:
asking:
readonly:
readwrite:
ping: | x | x y
echo: x | ""
command: | NOPE
command|count:
command|docs: get set | nope | get nope
command|getkeys: GET k | MGET a b | PING | NOPE | SET
command|getkeysandflags: GET k | SET k v | PING
command|info: get client|id nope
command|list: | FILTERBY ACLCAT geo | FILTERBY PATTERN xr* | FILTERBY FOO x
command|help:
role:
info: | server | keyspace | nope | commandstats server
config: NOPE
config|get: maxmemory* | nope | maxmemory save timeout
config|set: slowlog-max-len 128 | nope 1 | slowlog-max-len x
config|resetstat:
config|rewrite:
config|help:
cluster: NOPE
cluster|addslots: 1
cluster|addslotsrange: 1 2
cluster|bumpepoch:
cluster|count-failure-reports: x
cluster|countkeysinslot: 1
cluster|delslots: 1
cluster|delslotsrange: 1 2
cluster|failover:
cluster|flushslots:
cluster|forget: x
cluster|getkeysinslot: 1 2
cluster|help:
cluster|info:
cluster|keyslot: x
cluster|links:
cluster|meet: 127.0.0.1 1
cluster|myid:
cluster|nodes:
cluster|replicas: x
cluster|replicate: x
cluster|reset:
cluster|saveconfig:
cluster|set-config-epoch: 1
cluster|setslot: 1 STABLE
cluster|shards:
cluster|slaves: x
cluster|slots:
flushall: | ASYNC | FOO
flushdb: | SYNC | FOO
swapdb: 0 1 | x 1 | 0 99
move: @str 1 | @missing 1 | @str 0 | @str x | @str 99
keys: * | {t}s* | nope | [
dbsize:
randomkey:
scan: 0 COUNT 1000 | 0 MATCH *str* COUNT 1000 TYPE string | x | 0 FOO
script: NOPE
script|load: return(1) | nope(
script|flush: | ASYNC | FOO
script|exists: ffffffffffffffffffffffffffffffffffffffff e0e1f9fabfc9d4800c877a703b823ac0578ff8db
script|kill:
script|debug: NO | FOO
script|help:
function: NOPE
function|load: REPLACE !library | !library | junk
function|delete: nctest | nope
function|flush: | SYNC | FOO
function|restore: garbage | garbage FOO
function|kill:
function|dump:
function|list: | WITHCODE | LIBRARYNAME nope | FOO
function|stats:
function|help:
time:
lolwut: | VERSION 5 1 1 1 | VERSION x
module: NOPE
module|list:
module|load: /nonexistent.so
module|loadex: /nonexistent.so
module|unload: nope
module|help:
publish: ch msg
spublish: {t}ch msg
pubsub: NOPE
pubsub|channels: | x*
pubsub|numpat:
pubsub|numsub: | ch
pubsub|shardchannels: | x*
pubsub|shardnumsub: | ch
pubsub|help:
slowlog: NOPE
slowlog|get: | 0 | 2 | -1 | x | -2 | 1 2
slowlog|len:
slowlog|reset:
slowlog|help:
latency: NOPE
latency|doctor:
latency|graph: nope
latency|histogram: nope | get
latency|history: nope
latency|latest:
latency|reset: | nope
latency|help:
lastsave:
acl: NOPE
acl|whoami:
acl|cat: | geo | nope
acl|deluser: nctester | nope | default
acl|dryrun: default GET x | nope GET x | default NOPE
acl|genpass: | 8 | x
acl|getuser: default | nope
acl|list:
acl|load:
acl|log: | 1 | RESET | x
acl|save:
acl|setuser: nctester on nopass ~* +@read | nctester +nope | nctester FOO
acl|users:
acl|help:
save:
bgsave: | FOO | SCHEDULE
bgrewriteaof:
debug: SLEEP 0 | OBJECT @str | OBJECT @missing | SDSLEN @str | STRINGMATCH-LEN 10 * | NOPE | PROTOCOL STRING | PROTOCOL MAP | PROTOCOL ATTRIB | PROTOCOL NULL | SET-ACTIVE-EXPIRE 1 | RELOAD | LISTPACK @list
pfdebug: GETREG @hll | ENCODING @hll | FOO @hll | ENCODING @missing
pfselftest:
sync: x
psync: x
replconf: foo bar
replicaof: NO ONE
slaveof: NO ONE
failover: ABORT
shutdown: x y
migrate: 127.0.0.1 1 @missing 0 10
"""

LIBRARY = (b"#!lua name=nctest\nredis.register_function('ncset', function(k, a) return redis.call("
           b"'SET', k[1], a[1]) end)\nredis.register_function{function_name='ncget', flags={"
           b"'no-writes'}, callback=function(k) return redis.call('GET', k[1]) end}\n")

# The state that each command finds, the same on both sides.
STATE = [line.split() for line in """
SET @str hello
SET @str2 yellow
SET @num 10
SET @ttl x PXAT 4000000000000
RPUSH @list a b c b
RPUSH @list2 z
HSET @hash f1 v1 f2 v2 count 5
SADD @set a b c
SADD @set2 b c d
SADD @one member
ZADD @zset 1 a 2 b 3 c
ZADD @zset2 1 b 1 c 1 d
GEOADD @geo 13.361389 38.115556 Palermo 15.087269 37.502669 Catania
XADD @stream 1-1 f v
XADD @stream 2-1 f v
XGROUP CREATE @stream g 0
XCLAIM @stream g c1 0 1-1 FORCE JUSTID
PFADD @hll a b c
PFADD @hll2 c d
""".strip().splitlines()]


def word(text):
    """One word of a case as bytes."""
    if text == '""':
        return b""
    if text == "!library":
        return LIBRARY
    if text.startswith("@@"):
        return b"{%s}" % text[2:].encode()
    return (b"{t}" + text[1:].encode()) if text.startswith("@") else text.encode()


def words(text):
    return [word(each) for each in text.split()]


class Case:
    """Some commands that are sent at once, and how many replies they have."""

    def __init__(self, commands, n_replies=None):
        self.commands = commands
        self.n_replies = len(commands) if n_replies is None else n_replies

    def __repr__(self):
        return " & ".join(repr(command) for command in self.commands)


def read_cases():
    """{name as COMMAND spells it: [Case]}, written ones only."""
    found = {}
    for line in CASES.strip().splitlines():
        name, _, rest = line.partition(":")
        own = [part.encode() for part in name.upper().split("|")]
        cases = []
        for text in rest.split(" | ") if rest.strip() else [""]:
            text = text.strip().strip("|").strip()
            if text.startswith("& "):
                text, _, n_replies = text[2:].partition(" => ")
                cases.append(Case([words(each) for each in text.split(" & ")], int(n_replies)))
            else:
                cases.append(Case([own + words(text)]))
        assert name not in found, name
        found[name] = cases
    return found
