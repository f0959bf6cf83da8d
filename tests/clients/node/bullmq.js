'use strict';
// bullmq: a job queue as it is run in production, on ioredis (with --as-cluster on its Cluster).
// Producers, workers, delays, retries, priorities, flows, events: scripts, streams, blocking pops.

const Redis = require('ioredis');
const { Queue, Worker, QueueEvents, FlowProducer } = require('bullmq');
const { assert, parseArguments, until, main } = require('./common');

const options = parseArguments();
const prefix = `{${options.tag}}bull`;

function connection() {
  const redisOptions = { maxRetriesPerRequest: null, connectTimeout: 5000 };
  const client = options.asCluster
    ? new Redis.Cluster([{ host: '127.0.0.1', port: options.port }], { redisOptions })
    : new Redis({ host: '127.0.0.1', port: options.port, ...redisOptions });
  return client.on('error', () => {});
}

async function open(name) {
  const context = { opened: [], clients: [] };
  const make = (Class, ...rest) => {
    const shared = connection();
    context.clients.push(shared);
    const made = new Class(...rest, { connection: shared, prefix, ...context.extra });
    context.extra = {};
    made.on('error', () => {});
    context.opened.push(made);
    return made;
  };
  context.queue = make(Queue, name);
  context.events = make(QueueEvents, name);
  context.worker = (processor, extra = {}) => {
    context.extra = extra;
    return make(Worker, name, processor);
  };
  context.flow = () => make(FlowProducer);
  context.around = new Redis({ host: '127.0.0.1', port: options.around });
  context.around.on('error', () => {});
  context.clients.push(context.around);
  await context.queue.waitUntilReady();
  await context.events.waitUntilReady();
  return context;
}

async function close(context) {
  try {
    await Promise.all(context.opened.map((each) => each instanceof Worker
      ? each.close(true) : each.close()));
  } finally {
    context.clients.forEach((client) => client.disconnect());
  }
}

const steps = {
  async jobs({ queue, events, worker, around }) {
    const done = new Map();
    const process = async (job) => {
      done.set(job.data.n, (done.get(job.data.n) || 0) + 1);
      await job.updateProgress(50);
      return job.data.n * 2;
    };
    worker(process, { concurrency: 5 });
    worker(process, { concurrency: 5 });
    const jobs = await queue.addBulk(Array.from({ length: 100 }, (_, n) => (
      { name: 'double', data: { n } })));
    const results = await Promise.all(jobs.map((job) => job.waitUntilFinished(events)));
    assert.deepEqual(results, jobs.map((_, n) => n * 2));
    assert.ok([...done.values()].every((times) => times === 1) && done.size === 100);
    assert.equal(await queue.getCompletedCount(), 100);
    assert.equal(await around.zcard(`${prefix}:jobs:completed`), 100);
  },

  async retries({ queue, events, worker }) {
    const attempts = [];
    worker(async (job) => {
      attempts.push(job.attemptsMade);
      if (job.attemptsMade < 2 || job.name === 'hopeless') {
        throw new Error('not yet');
      }
      return 'at last';
    });
    const job = await queue.add('stubborn', {}, {
      attempts: 3, backoff: { type: 'fixed', delay: 20 } });
    assert.equal(await job.waitUntilFinished(events), 'at last');
    assert.deepEqual(attempts, [0, 1, 2]);
    const hopeless = await queue.add('hopeless', {}, { attempts: 2, backoff: 10 });
    await assert.rejects(hopeless.waitUntilFinished(events), /not yet/);
    assert.equal((await queue.getFailed())[0].failedReason, 'not yet');
    assert.equal(await queue.getFailedCount(), 1);
  },

  async delayed({ queue, events, worker }) {
    const order = [];
    const jobs = [];
    for (const [name, delay] of [['late', 300], ['now', 0], ['soon', 120]]) {
      jobs.push(await queue.add(name, { at: Date.now() + delay }, { delay }));
    }
    assert.equal(await queue.getDelayedCount(), 2);
    worker(async (job) => {
      assert.ok(Date.now() >= job.data.at - 5, `${job.name} came too early`);
      order.push(job.name);
    });
    await Promise.all(jobs.map((job) => job.waitUntilFinished(events)));
    assert.deepEqual(order, ['now', 'soon', 'late']);
  },

  async priorities({ queue, events, worker }) {
    const order = [];
    const jobs = [];
    for (const priority of [30, 10, 20]) {
      jobs.push(await queue.add('p', { priority }, { priority }));
    }
    worker(async (job) => { order.push(job.data.priority); });
    await Promise.all(jobs.map((job) => job.waitUntilFinished(events)));
    assert.deepEqual(order, [10, 20, 30]);
  },

  async flows({ queue, events, worker, flow }) {
    worker(async (job) => {
      if (job.name !== 'parent') {
        return job.data.n;
      }
      return Object.values(await job.getChildrenValues()).reduce((sum, n) => sum + n, 0);
    }, { concurrency: 3 });
    const tree = await flow().add({ name: 'parent', queueName: queue.name, data: {},
      children: [1, 2, 3].map((n) => ({ name: 'child', queueName: queue.name, data: { n } })) });
    assert.equal(await tree.job.waitUntilFinished(events), 6);
  },

  async pausing({ queue, events, worker }) {
    let processed = 0;
    worker(async () => { processed++; });
    await queue.pause();
    const job = await queue.add('waits', {});
    assert.equal(await queue.isPaused(), true);
    assert.equal(processed, 0);
    await queue.resume();
    await job.waitUntilFinished(events);
    assert.equal(processed, 1);
    await queue.drain();
    await queue.obliterate({ force: true });
    assert.equal(await queue.count(), 0);
  },

  async events({ queue, events, worker }) {
    const seen = [];
    for (const name of ['added', 'waiting', 'active', 'progress', 'completed']) {
      events.on(name, ({ jobId }) => seen.push(`${name}:${jobId}`));
    }
    // QueueEvents reads from now on: without this the first could pass it by.
    const first = await queue.add('probe', {});
    worker(async (job) => job.updateProgress(10));
    await first.waitUntilFinished(events);
    const job = await queue.add('seen', {});
    await job.waitUntilFinished(events);
    await until(() => seen.includes(`completed:${job.id}`), 'the events');
    assert.deepEqual(seen.filter((each) => each.endsWith(`:${job.id}`)),
      ['added', 'waiting', 'active', 'progress', 'completed'].map((each) => `${each}:${job.id}`));
  },

  async scheduler({ queue, worker }) {
    let runs = 0;
    worker(async () => { runs++; });
    await queue.upsertJobScheduler('often', { every: 100 }, { name: 'tick' });
    await until(() => runs >= 3, 'three runs of a job that repeats');
    assert.equal(await queue.removeJobScheduler('often'), true);
    assert.equal(await queue.getJobSchedulersCount(), 0);
  },
};

main(steps, options, open, close);
