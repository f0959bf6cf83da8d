'use strict';
// node-redis 5, in RESP2 and RESP3 (--resp 3); in RESP3 also with its client-side cache.

const { createClient, createClientPool, BasicClientSideCache, WatchError } = require('redis');
const { assert, parseArguments, until, deadline, main } = require('./common');

const options = parseArguments();
const key = (name) => `{${options.tag}}${name}`;

async function open() {
  const context = { opened: [] };
  context.connect = async (extra = {}, port = options.port) => {
    const client = createClient({ RESP: options.resp, name: 'scenario', unstableResp3: true,
      socket: { host: '127.0.0.1', port, connectTimeout: 5000, reconnectStrategy: 50 }, ...extra });
    client.on('error', () => {});
    context.opened.push(client);
    return client.connect();
  };
  context.a = await context.connect();
  context.b = await context.connect();
  context.around = await context.connect({}, options.around);
  return context;
}

// In RESP3 the library hands XREAD's map on as it is, in RESP2 as a list of objects.
function firstStream(reply) {
  if (Array.isArray(reply)) {
    return reply[0];
  }
  const [name, [[id, fields]]] = Object.entries(reply)[0];
  return { name, messages: [{ id, message: { [fields[0]]: fields[1] } }] };
}

async function close(context) {
  context.opened.forEach((client) => client.destroy());
}

const steps = {
  async connect({ a, connect }) {
    assert.equal(await a.clientGetName(), 'scenario');
    assert.match(await a.info('server'), /redis_version:7/);
    const hello = await a.hello(options.resp);
    assert.equal(Number(hello.proto), options.resp);
    assert.equal(hello.server, 'redis');
    const url = await connect({ url: `redis://127.0.0.1:${options.port}`, socket: undefined,
      pingInterval: 1000, disableOfflineQueue: true });
    assert.equal(await url.ping(), 'PONG');
    const info = await a.clientInfo();
    assert.equal(info.name, 'scenario');
    assert.equal(Number(info.resp), options.resp);
    await url.close();
  },

  async databases({ a, connect }) {
    if (options.cluster) {
      return;
    }
    const second = await connect({ database: 3 });
    await second.set(key('db'), 'three');
    await a.set(key('db'), 'zero');
    assert.equal(await second.get(key('db')), 'three');
    assert.equal(await a.get(key('db')), 'zero');
    await a.select(3);
    assert.equal(await a.get(key('db')), 'three');
    await second.del(key('db'));
  },

  async strings({ a }) {
    assert.equal(await a.set(key('s'), 'one', { EX: 100, NX: true }), 'OK');
    assert.equal(await a.set(key('s'), 'two', { NX: true }), null);
    assert.equal(await a.set(key('s'), 'two', { GET: true }), 'one');
    assert.equal(await a.incrBy(key('n'), 41), 41);
    assert.equal(await a.incrByFloat(key('n'), 1.5), '42.5');
    assert.deepEqual(await a.mGet([key('s'), key('none'), key('n')]), ['two', null, '42.5']);
    assert.equal(await a.exists([key('s'), key('none')]), 1);
    assert.equal(await a.expire(key('s'), 100), 1);
    assert.ok(await a.ttl(key('s')) > 90);
    await assert.rejects(a.incr(key('s')), /not an integer/);
    await assert.rejects(a.lPush(key('s'), 'x'), /WRONGTYPE/);
  },

  async hashes({ a }) {
    await a.hSet(key('h'), { f: 'v', n: 1, empty: '' });
    assert.deepEqual({ ...await a.hGetAll(key('h')) }, { f: 'v', n: '1', empty: '' });
    assert.equal(await a.hIncrBy(key('h'), 'n', 4), 5);
    assert.deepEqual(await a.hmGet(key('h'), ['f', 'none']), ['v', null]);
    const fields = [];
    for await (const some of a.hScanIterator(key('h'))) {
      fields.push(...some);
    }
    assert.equal(fields.length, 3);
  },

  async lists({ a }) {
    assert.equal(await a.rPush(key('l'), ['a', 'b', 'c']), 3);
    assert.deepEqual(await a.lRange(key('l'), 0, -1), ['a', 'b', 'c']);
    assert.equal(await a.lMove(key('l'), key('l2'), 'LEFT', 'RIGHT'), 'a');
    assert.equal(await a.lPop(key('l')), 'b');
  },

  async zsets({ a }) {
    await a.zAdd(key('z'), [{ score: 1, value: 'one' }, { score: 2.5, value: 'two' },
      { score: Infinity, value: 'last' }]);
    assert.deepEqual((await a.zRangeWithScores(key('z'), 0, -1)).map((each) => ({ ...each })),
      [{ value: 'one', score: 1 }, { value: 'two', score: 2.5 },
        { value: 'last', score: Infinity }]);
    assert.equal(await a.zScore(key('z'), 'two'), 2.5);
    assert.equal(await a.zScore(key('z'), 'none'), null);
    assert.equal((await a.zPopMin(key('z'))).value, 'one');
    await a.sAdd(key('set'), ['x', 'y']);
    assert.deepEqual((await a.sMembers(key('set'))).sort(), ['x', 'y']);
    assert.deepEqual(await a.smIsMember(key('set'), ['x', 'q']), [1, 0]);
  },

  async streams({ a, b }) {
    const id = await a.xAdd(key('x'), '*', { f: 'v' });
    const range = await b.xRange(key('x'), '-', '+');
    assert.equal(range[0].id, id);
    assert.equal(range[0].message.f, 'v');
    await a.xGroupCreate(key('x'), 'g', '0');
    const read = firstStream(await b.xReadGroup('g', 'c', { key: key('x'), id: '>' },
      { COUNT: 10 }));
    assert.equal(read.name, key('x'));
    assert.equal(read.messages[0].id, id);
    assert.equal((await a.xPending(key('x'), 'g')).pending, 1);
    assert.equal(await a.xAck(key('x'), 'g', id), 1);
    assert.equal((await a.xInfoGroups(key('x')))[0].name, 'g');
    let late = null;
    const waiting = b.xRead({ key: key('x'), id: '$' }, { BLOCK: 5000 }).then((found) => {
      late = found;
    });
    await until(async () => {
      await a.xAdd(key('x'), '*', { late: '1' });
      return late;
    }, 'XREAD BLOCK');
    await waiting;
    assert.equal(firstStream(late).messages[0].message.late, '1');
  },

  async pipelines({ a }) {
    const replies = await Promise.all(Array.from({ length: 500 }, async (_, i) => {
      a.set(key(`p${i}`), String(i));
      return a.get(key(`p${i}`));
    }));
    assert.deepEqual(replies, Array.from({ length: 500 }, (_, i) => String(i)));
    assert.deepEqual(await a.multi().set(key('p'), '1').incr(key('p')).get(key('p'))
      .execAsPipeline(), ['OK', 2, '2']);
  },

  async spread({ a }) {
    const names = Array.from({ length: 200 }, (_, i) => `${options.tag}:spread${i}`);
    await a.mSet(names.map((name, i) => [name, String(i)]));
    assert.deepEqual(await a.mGet(names), names.map((_, i) => String(i)));
    assert.equal(await a.exists(names), 200);
    assert.equal(await a.del(names), 200);
  },

  async big({ a, b }) {
    const value = 'nearcached'.repeat(600000);
    await a.set(key('big'), value);
    assert.ok(await b.get(key('big')) === value);
    assert.ok(await b.get(key('big')) === value);
    await a.rPush(key('biglist'), Array.from({ length: 20000 }, (_, i) => `item${i}`));
    assert.equal((await b.lRange(key('biglist'), 0, -1)).length, 20000);
    await a.unlink([key('big'), key('biglist')]);
  },

  async scan({ a }) {
    const names = Array.from({ length: 300 }, (_, i) => `${options.tag}:scan:${i}`);
    await Promise.all(names.map((name) => a.set(name, '1')));
    const found = new Set();
    for await (const some of a.scanIterator({ MATCH: `${options.tag}:scan:*`, COUNT: 50 })) {
      some.forEach((name) => found.add(name));
    }
    assert.deepEqual([...found].sort(), names.sort());
  },

  async scripts({ a, around }) {
    const script = `-- ${options.tag}\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])`;
    await around.scriptFlush();
    const sha = require('node:crypto').createHash('sha1').update(script).digest('hex');
    const call = { keys: [key('script')], arguments: ['5'] };
    await assert.rejects(a.evalSha(sha, call), /NOSCRIPT/);
    assert.equal(await a.eval(script, call), 5);
    assert.equal(await a.evalSha(sha, call), 10);
    assert.equal(await a.scriptLoad(script), sha);
    assert.equal(await a.get(key('script')), '10');
  },

  async visible({ a, b, around }) {
    for (let i = 0; i < 100; i++) {
      await a.set(key('seen'), String(i));
      assert.equal(await b.get(key('seen')), String(i));
      assert.equal(await b.get(key('seen')), String(i));
    }
    assert.equal(await around.get(key('seen')), '99');
    for (let i = 0; i < 5; i++) {
      await around.set(key('seen'), `around${i}`);
      await until(async () => await b.get(key('seen')) === `around${i}`, 'the write around');
    }
  },

  async transactions({ a, b }) {
    await a.set(key('t'), '1');
    assert.deepEqual(await a.multi().incr(key('t')).get(key('t')).exec(), [2, '2']);
    assert.equal(await b.get(key('t')), '2');
    await a.watch(key('t'));
    await b.set(key('t'), 'other');
    await assert.rejects(a.multi().set(key('t'), 'mine').exec(), WatchError);
    assert.equal(await a.get(key('t')), 'other');
    const pool = createClientPool({ RESP: options.resp, socket: {
      host: '127.0.0.1', port: options.port } }, { minimum: 1, maximum: 5 });
    pool.on('error', () => {});
    await pool.connect();
    try {
      await a.set(key('counter'), '0');
      await Promise.all(Array.from({ length: 20 }, () => pool.execute(async (client) => {
        for (;;) {
          await client.watch(key('counter'));
          const value = Number(await client.get(key('counter')));
          try {
            return await client.multi().set(key('counter'), String(value + 1)).exec();
          } catch (error) {
            if (!(error instanceof WatchError)) {
              throw error;
            }
          }
        }
      })));
      assert.equal(await b.get(key('counter')), '20');
    } finally {
      pool.destroy();
    }
  },

  async blocking({ a, b }) {
    const waiting = b.blPop([key('q'), key('q2')], 5);
    await a.rPush(key('q2'), 'job');
    assert.deepEqual({ ...await waiting }, { key: key('q2'), element: 'job' });
    const started = Date.now();
    assert.equal(await b.blPop(key('q'), 0.2), null);
    assert.ok(Date.now() - started >= 190);
    const popped = b.bzPopMin(key('zq'), 5);
    await a.zAdd(key('zq'), { score: 7, value: 'm' });
    assert.deepEqual({ ...await popped }, { key: key('zq'), value: 'm', score: 7 });
  },

  async pubsub({ a, b, connect, around }) {
    const subscriber = await connect();
    const messages = [];
    const listener = (message, channel) => messages.push(`${channel}=${message}`);
    const channel = key('news');
    await subscriber.subscribe(channel, listener);
    await subscriber.pSubscribe(`${options.tag}.*`, listener);
    await until(async () => {
      await a.publish(channel, 'through');
      return messages.includes(`${channel}=through`);
    }, 'a message through');
    await until(async () => {
      await b.publish(`${options.tag}.x`, 'p');
      return messages.includes(`${options.tag}.x=p`);
    }, 'a message for a pattern');
    await around.publish(channel, 'around');
    await until(() => messages.includes(`${channel}=around`), 'a message around');
    if (options.resp === 3) {
      await subscriber.set(key('while'), 'subscribed');
      assert.equal(await a.get(key('while')), 'subscribed');
    }
    await subscriber.unsubscribe(channel);
    await subscriber.pUnsubscribe();
    assert.equal(String(await subscriber.ping()), 'PONG');
  },

  // The library's own cache: CLIENT TRACKING ON at connect, then invalidations by push.
  async tracking({ a, connect, around }) {
    if (options.resp !== 3) {
      return;
    }
    const cache = new BasicClientSideCache({ ttl: 0, maxEntries: 100, evictPolicy: 'LRU' });
    const cached = await deadline(connect({ clientSideCache: cache }), 3000,
      'connecting with CLIENT TRACKING');
    await a.set(key('c'), '0');
    await a.hSet(key('ch'), 'f', '0');
    for (let i = 1; i <= 20; i++) {
      await cached.get(key('c'));
      assert.equal(await cached.get(key('c')), String(i - 1));
      assert.equal((await cached.hGetAll(key('ch'))).f, String(i - 1));
      const writer = i % 4 === 0 ? around : a;
      await writer.set(key('c'), String(i));
      await writer.hSet(key('ch'), 'f', String(i));
      await until(async () => await cached.get(key('c')) === String(i), 'the invalidation');
      await until(async () => (await cached.hGetAll(key('ch'))).f === String(i), 'the other one');
    }
    const before = cache.stats().hitCount;
    for (let i = 0; i < 50; i++) {
      await cached.get(key('c'));
    }
    assert.ok(cache.stats().hitCount >= before + 49);
    // What was lost with the connection must not be believed: the cache empties itself.
    const id = await cached.clientId();
    await a.clientKill({ filter: 'ID', id });
    await a.set(key('c'), 'after');
    await until(async () => await cached.get(key('c')) === 'after', 'the cache after a reconnect');
    await around.flushDb();
    await until(async () => await cached.get(key('c')) === null, 'the flush');
  },

  async reconnect({ a, b }) {
    await a.set(key('r'), '1');
    const id = await a.clientId();
    const again = new Promise((resolve) => { a.once('ready', resolve); });
    assert.equal(await b.sendCommand(['CLIENT', 'KILL', 'ID', String(id)]), 1);
    await again;
    assert.equal(await a.incr(key('r')), 2);
    assert.notEqual(await a.clientId(), id);
    assert.equal(await a.clientGetName(), 'scenario');
  },
};

main(steps, options, open, close);
