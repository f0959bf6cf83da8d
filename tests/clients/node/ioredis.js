'use strict';
// ioredis 5: standalone mode, and with --as-cluster its Cluster, which insists on CLUSTER SLOTS.

const Redis = require('ioredis');
const { assert, parseArguments, until, main } = require('./common');

const options = parseArguments();
const key = (name) => `{${options.tag}}${name}`;
const quiet = (client) => client.on('error', () => {});

function connect(extra = {}) {
  if (options.asCluster) {
    return quiet(new Redis.Cluster([{ host: '127.0.0.1', port: options.port }], {
      redisOptions: { connectTimeout: 5000, ...extra },
      clusterRetryStrategy: () => 50,
    }));
  }
  return quiet(new Redis({ host: '127.0.0.1', port: options.port, connectionName: 'scenario',
    retryStrategy: () => 50, enableReadyCheck: true, connectTimeout: 5000, ...extra }));
}

async function open() {
  const context = { opened: [] };
  context.connect = (extra) => {
    context.opened.push(connect(extra));
    return context.opened.at(-1);
  };
  context.a = context.connect();
  context.b = context.connect();
  context.around = quiet(new Redis({ host: '127.0.0.1', port: options.around }));
  context.opened.push(context.around);
  await Promise.all([context.a.ping(), context.b.ping(), context.around.ping()]);
  return context;
}

async function close(context) {
  context.opened.forEach((client) => client.disconnect());
}

const steps = {
  async connect({ a, connect }) {
    if (options.asCluster) {
      assert.ok(a.nodes('master').length >= 1);
      assert.match(await a.nodes('master')[0].info('server'), /redis_version:/);
      return;
    }
    assert.equal(await a.client('GETNAME'), 'scenario');
    assert.ok(await a.client('ID') > 0);
    assert.match(await a.info(), /redis_version:7/);
    assert.equal(await connect({ keepAlive: 1000, noDelay: true, autoPipelining: true,
      connectionName: 'other' }).client('GETNAME'), 'other');
    const lazy = connect({ lazyConnect: true, enableOfflineQueue: false });
    await lazy.connect();
    assert.equal(await lazy.ping(), 'PONG');
    await lazy.quit();
  },

  async databases({ a, connect }) {
    if (options.cluster || options.asCluster) {
      return;
    }
    const second = connect({ db: 3 });
    await second.set(key('db'), 'three');
    await a.set(key('db'), 'zero');
    assert.equal(await second.get(key('db')), 'three');
    assert.equal(await a.get(key('db')), 'zero');
    await a.select(3);
    assert.equal(await a.get(key('db')), 'three');
    await second.del(key('db'));
  },

  async strings({ a }) {
    assert.equal(await a.set(key('s'), 'one', 'EX', 100, 'NX'), 'OK');
    assert.equal(await a.set(key('s'), 'two', 'NX'), null);
    assert.equal(await a.get(key('s')), 'one');
    assert.equal(await a.incrby(key('n'), 41), 41);
    assert.equal(await a.incrbyfloat(key('n'), 1.5), '42.5');
    const binary = Buffer.from([0, 255, 13, 10, 128]);
    await a.set(key('bin'), binary);
    assert.deepEqual(await a.getBuffer(key('bin')), binary);
    assert.deepEqual(await a.mget(key('s'), key('none'), key('n')), ['one', null, '42.5']);
    assert.equal(await a.setbit(key('bits'), 7, 1), 0);
    assert.equal(await a.bitcount(key('bits')), 1);
    await assert.rejects(a.incr(key('s')), /not an integer/);
    await assert.rejects(a.lpush(key('s'), 'x'), /WRONGTYPE/);
  },

  async hashes({ a }) {
    await a.hset(key('h'), { f: 'v', n: 1, empty: '' });
    assert.deepEqual(await a.hgetall(key('h')), { f: 'v', n: '1', empty: '' });
    assert.equal(await a.hincrby(key('h'), 'n', 4), 5);
    assert.deepEqual(await a.hmget(key('h'), 'f', 'none'), ['v', null]);
    const [, fields] = await a.hscan(key('h'), 0);
    assert.equal(fields.length, 6);
    assert.deepEqual(await a.hgetall(key('nohash')), {});
  },

  async lists({ a }) {
    assert.equal(await a.rpush(key('l'), 'a', 'b', 'c'), 3);
    assert.deepEqual(await a.lrange(key('l'), 0, -1), ['a', 'b', 'c']);
    assert.equal(await a.lmove(key('l'), key('l2'), 'LEFT', 'RIGHT'), 'a');
    assert.equal(await a.lpop(key('l')), 'b');
    assert.deepEqual(await a.lrange(key('l2'), 0, -1), ['a']);
  },

  async zsets({ a }) {
    await a.zadd(key('z'), 1, 'one', 2.5, 'two', '+inf', 'last');
    assert.deepEqual(await a.zrange(key('z'), 0, -1, 'WITHSCORES'),
      ['one', '1', 'two', '2.5', 'last', 'inf']);
    assert.equal(await a.zscore(key('z'), 'two'), '2.5');
    assert.deepEqual(await a.zpopmin(key('z')), ['one', '1']);
    await a.sadd(key('set'), 'x', 'y');
    assert.deepEqual((await a.smembers(key('set'))).sort(), ['x', 'y']);
  },

  async streams({ a, b }) {
    const id = await a.xadd(key('x'), '*', 'f', 'v');
    assert.deepEqual(await b.xrange(key('x'), '-', '+'), [[id, ['f', 'v']]]);
    await a.xgroup('CREATE', key('x'), 'g', '0');
    const read = await b.xreadgroup('GROUP', 'g', 'c', 'COUNT', 10, 'STREAMS', key('x'), '>');
    assert.deepEqual(read, [[key('x'), [[id, ['f', 'v']]]]]);
    assert.equal((await a.xpending(key('x'), 'g'))[0], 1);
    assert.equal(await a.xack(key('x'), 'g', id), 1);
    const waiting = b.xread('BLOCK', 5000, 'STREAMS', key('x'), '$');
    await a.ping();
    await until(async () => {
      await a.xadd(key('x'), '*', 'late', '1');
      return Promise.race([waiting.then(() => true), new Promise((resolve) =>
        setTimeout(() => resolve(false), 20))]);
    }, 'XREAD BLOCK');
    assert.equal((await waiting)[0][0], key('x'));
  },

  async pipelines({ a }) {
    const pipeline = a.pipeline();
    for (let i = 0; i < 500; i++) {
      pipeline.set(key(`p${i}`), i).get(key(`p${i}`));
    }
    const results = await pipeline.exec();
    assert.ok(results.every(([error]) => error === null));
    assert.deepEqual(results.filter((_, i) => i % 2).map(([, value]) => value),
      Array.from({ length: 500 }, (_, i) => String(i)));
    const mixed = await a.pipeline().set(key('p0'), 'x').incr(key('p0')).get(key('p0')).exec();
    assert.match(mixed[1][0].message, /not an integer/);
    assert.equal(mixed[2][1], 'x');
  },

  async spread({ a }) {
    const names = Array.from({ length: 200 }, (_, i) => `${options.tag}:spread${i}`);
    await Promise.all(names.map((name, i) => a.set(name, i)));
    assert.deepEqual(await Promise.all(names.map((name) => a.get(name))),
      names.map((_, i) => String(i)));
    if (!options.asCluster) {
      await a.mset(Object.fromEntries(names.map((name, i) => [name, i + 1])));
      assert.deepEqual(await a.mget(names), names.map((_, i) => String(i + 1)));
      assert.equal(await a.del(names), 200);
    }
  },

  async big({ a, b }) {
    const value = Buffer.alloc(6 << 20, 'nearcached');
    await a.set(key('big'), value);
    assert.ok(value.equals(await b.getBuffer(key('big'))));
    assert.ok(value.equals(await b.getBuffer(key('big'))));
    await a.rpush(key('biglist'), ...Array.from({ length: 20000 }, (_, i) => `item${i}`));
    assert.equal((await b.lrange(key('biglist'), 0, -1)).length, 20000);
    await a.unlink(key('big'), key('biglist'));
  },

  async scan({ a }) {
    const names = Array.from({ length: 300 }, (_, i) => `${options.tag}:scan:${i}`);
    await Promise.all(names.map((name) => a.set(name, 1)));
    const found = new Set();
    for (const node of options.asCluster ? a.nodes('master') : [a]) {
      for await (const some of node.scanStream({ match: `${options.tag}:scan:*`, count: 50 })) {
        some.forEach((name) => found.add(name));
      }
    }
    assert.deepEqual([...found].sort(), names.sort());
  },

  async scripts({ a, connect, around }) {
    // defineCommand sends EVALSHA, and EVAL when the script is unknown: as it is now.
    await around.script('FLUSH');
    const client = connect();
    client.defineCommand('addTwo', { numberOfKeys: 1,
      lua: `-- ${options.tag}\nreturn redis.call('INCRBY', KEYS[1], ARGV[1] * 2)` });
    await a.set(key('script'), 1);
    assert.equal(await client.addTwo(key('script'), 5), 11);
    assert.equal(await client.addTwo(key('script'), 5), 21);
    assert.equal(await a.get(key('script')), '21');
    await assert.rejects(a.evalsha('f'.repeat(40), 1, key('script')), /NOSCRIPT/);
  },

  async visible({ a, b, around }) {
    for (let i = 0; i < 100; i++) {
      await a.set(key('seen'), i);
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
    await a.set(key('t'), 1);
    const results = await a.multi().incr(key('t')).get(key('t')).exec();
    assert.deepEqual(results, [[null, 2], [null, '2']]);
    assert.equal(await b.get(key('t')), '2');
    const queued = options.asCluster ? null : await a.multi().set(key('t'), 3)
      .lpush(key('t'), 'x').exec();
    if (queued) {
      assert.match(queued[1][0].message, /WRONGTYPE/);
      await a.watch(key('t'));
      await b.set(key('t'), 'other');
      assert.equal(await a.multi().set(key('t'), 'mine').exec(), null);
      assert.equal(await a.get(key('t')), 'other');
      await a.watch(key('t'));
      assert.deepEqual(await a.multi().set(key('t'), 'mine').exec(), [[null, 'OK']]);
      assert.equal(await b.get(key('t')), 'mine');
    }
  },

  async blocking({ a, b }) {
    const waiting = b.blpop(key('q'), key('q2'), 5);
    await a.rpush(key('q2'), 'job');
    assert.deepEqual(await waiting, [key('q2'), 'job']);
    const started = Date.now();
    assert.equal(await b.blpop(key('q'), 0.2), null);
    assert.ok(Date.now() - started >= 190);
    const moving = b.blmove(key('q'), key('done'), 'LEFT', 'RIGHT', 5);
    await a.rpush(key('q'), 'next');
    assert.equal(await moving, 'next');
    assert.deepEqual(await a.lrange(key('done'), 0, -1), ['next']);
    const popped = b.bzpopmin(key('zq'), 5);
    await a.zadd(key('zq'), 7, 'm');
    assert.deepEqual(await popped, [key('zq'), 'm', '7']);
  },

  async pubsub({ a, b, connect, around }) {
    const subscriber = connect();
    const messages = [];
    subscriber.on('message', (channel, message) => messages.push(`${channel}=${message}`));
    subscriber.on('pmessage', (pattern, channel, message) =>
      messages.push(`${pattern}:${channel}=${message}`));
    const channel = key('news');
    assert.equal(await subscriber.subscribe(channel), 1);
    await subscriber.psubscribe(`${options.tag}.*`);
    await until(async () => {
      await a.publish(channel, 'through');
      return messages.includes(`${channel}=through`);
    }, 'a message through');
    await until(async () => {
      await b.publish(`${options.tag}.x`, 'p');
      return messages.includes(`${options.tag}.*:${options.tag}.x=p`);
    }, 'a message for a pattern');
    await around.publish(channel, 'around');
    await until(() => messages.includes(`${channel}=around`), 'a message around');
    await subscriber.unsubscribe(channel);
    await subscriber.punsubscribe();
  },

  async reconnect({ a, b }) {
    if (options.asCluster) {
      return;
    }
    await a.set(key('r'), 1);
    const id = await a.client('ID');
    const again = new Promise((resolve) => { a.once('ready', resolve); });
    assert.equal(await b.client('KILL', 'ID', id), 1);
    await again;
    assert.equal(await a.incr(key('r')), 2);
    assert.notEqual(await a.client('ID'), id);
    assert.equal(await a.client('GETNAME'), 'scenario');
  },
};

main(steps, options, open, close);
