'use strict';
// What the Node programs share: arguments, the run of the sub-scenarios, checks.

const assert = require('node:assert/strict');

const STEP_MS = Number(process.env.NEARCACHED_STEP_MS || 10000);

function parseArguments() {
  const options = { port: 0, around: 0, tag: '', only: null, cluster: false, asCluster: false,
    resp: 2, list: false };
  const words = process.argv.slice(2);
  while (words.length > 0) {
    const word = words.shift();
    switch (word) {
      case '--port': options.port = Number(words.shift()); break;
      case '--around': options.around = Number(words.shift()); break;
      case '--tag': options.tag = words.shift(); break;
      case '--only': options.only = words.shift().split(','); break;
      case '--resp': options.resp = Number(words.shift()); break;
      case '--cluster': options.cluster = true; break;
      case '--as-cluster': options.asCluster = true; break;
      case '--list': options.list = true; break;
      default: throw new Error(`unknown argument ${word}`);
    }
  }
  return options;
}

function deadline(promise, ms, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no end of ${what} within ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// Polls until check() is true: for what another process does in its own time.
async function until(check, what, ms = 5000) {
  const end = Date.now() + ms;
  for (;;) {
    const value = await check();
    if (value) {
      return value;
    }
    if (Date.now() > end) {
      throw new Error(`waited ${ms} ms in vain for ${what}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

// Runs each of {name: async (context) => ...}. open() makes a context of fresh connections,
// close(context) drops them, also after a step that hangs.
async function main(steps, options, open, close) {
  const names = Object.keys(steps).filter((name) => !options.only || options.only.includes(name));
  if (options.list) {
    console.log(Object.keys(steps).join('\n'));
    return;
  }
  let failures = options.only && names.length < options.only.length ? 1 : 0;
  for (const name of names) {
    let context = null;
    try {
      context = await deadline(open(name), STEP_MS, 'connecting');
      await deadline(steps[name](context), STEP_MS, name);
      console.log(`ok ${name}`);
    } catch (error) {
      failures++;
      const where = (error.stack || '').split('\n').find((line) => line.includes('/clients/node/'));
      const text = String(error.message || error).replace(/\s+/g, ' ').slice(0, 300);
      console.log(`FAIL ${name}: ${text} ${(where || '').trim().replace(/\(.*\//, '(')}`);
    }
    if (context) {
      await deadline(close(context), STEP_MS, 'closing').catch(() => {});
    }
  }
  process.exit(failures ? 1 : 0);
}

// A library that throws where nobody listens must fail the run, and say what it was.
process.on('unhandledRejection', (error) => {
  console.log(`FAIL unhandled: ${String(error && error.stack || error).replace(/\s+/g, ' ')}`);
  process.exit(1);
});

module.exports = { assert, parseArguments, until, deadline, main };
