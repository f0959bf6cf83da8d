<?php
// php-redis (phpredis), as Debian packages it.

declare(strict_types=1);

$options = ['port' => 0, 'around' => 0, 'tag' => '', 'only' => null, 'cluster' => false];
for ($i = 1; $i < $argc; $i++) {
    $name = substr($argv[$i], 2);
    $options[$name] = $name === 'cluster' || $name === 'list' ? true : $argv[++$i];
}
$names = $options['only'] === null ? null : explode(',', $options['only']);

function key_of(string $name): string
{
    global $options;
    return '{' . $options['tag'] . '}' . $name;
}

function open(?int $port = null, bool $persistent = false): Redis
{
    global $options;
    $client = new Redis();
    $port ??= (int) $options['port'];
    if ($persistent) {
        $client->pconnect('127.0.0.1', $port, 5.0, 'scenario');
    } else {
        $client->connect('127.0.0.1', $port, 5.0);
    }
    $client->setOption(Redis::OPT_READ_TIMEOUT, 8);
    return $client;
}

function same(mixed $expected, mixed $got): void
{
    if ($expected !== $got) {
        throw new Exception('expected ' . json_encode($expected) . ', got ' . json_encode($got));
    }
}

// Runs code in a process of its own, with connections of its own.
function beside(callable $code): int
{
    $pid = pcntl_fork();
    if ($pid === 0) {
        $code();
        posix_kill(posix_getpid(), SIGKILL); // no destructors: they would close our sockets
    }
    return $pid;
}

function until(callable $check, string $what): void
{
    for ($end = microtime(true) + 5; !$check(); usleep(10000)) {
        if (microtime(true) > $end) {
            throw new Exception("waited in vain for $what");
        }
    }
}

$steps = [
    'connect' => function (Redis $a) {
        $a->client('setname', 'scenario');
        same('scenario', $a->client('getname'));
        same('7', $a->info()['redis_version'][0]);
        $kept = open(null, true);
        same(true, $kept->ping());
        $kept->close();
        same(true, open(null, true)->ping());
        same('echo', $a->echo('echo'));
    },

    'databases' => function (Redis $a, Redis $b) {
        global $options;
        if ($options['cluster']) {
            return;
        }
        $b->select(3);
        $b->set(key_of('db'), 'three');
        $a->set(key_of('db'), 'zero');
        same(['three', 'zero'], [$b->get(key_of('db')), $a->get(key_of('db'))]);
        $b->del(key_of('db'));
    },

    'strings' => function (Redis $a) {
        same(true, $a->set(key_of('s'), 'one', ['nx', 'ex' => 100]));
        same(false, $a->set(key_of('s'), 'two', ['nx']));
        same('one', $a->get(key_of('s')));
        same(false, $a->get(key_of('none')));
        same(41, $a->incrBy(key_of('n'), 41));
        same(42.5, $a->incrByFloat(key_of('n'), 1.5));
        same(['one', false], $a->mGet([key_of('s'), key_of('none')]));
        same("\0\xff\r\n", $a->set(key_of('bin'), "\0\xff\r\n") ? $a->get(key_of('bin')) : null);
        same(false, $a->incr(key_of('s')));
        same(true, str_contains($a->getLastError(), 'not an integer'));
        $a->clearLastError();
        $a->setOption(Redis::OPT_SERIALIZER, Redis::SERIALIZER_PHP);
        $a->set(key_of('object'), ['deep' => [1, 2.5, null]]);
        same(['deep' => [1, 2.5, null]], $a->get(key_of('object')));
    },

    'hashes' => function (Redis $a) {
        $a->hMSet(key_of('h'), ['f' => 'v', 'n' => '1']);
        same(['f' => 'v', 'n' => '1'], $a->hGetAll(key_of('h')));
        same(5, $a->hIncrBy(key_of('h'), 'n', 4));
        same(['f' => 'v', 'none' => false], $a->hMGet(key_of('h'), ['f', 'none']));
    },

    'lists' => function (Redis $a) {
        same(3, $a->rPush(key_of('l'), 'a', 'b', 'c'));
        same(['a', 'b', 'c'], $a->lRange(key_of('l'), 0, -1));
        same('a', $a->lPop(key_of('l')));
        same('c', $a->rpoplpush(key_of('l'), key_of('l2')));
    },

    'zsets' => function (Redis $a) {
        $a->zAdd(key_of('z'), 1, 'one', 2.5, 'two');
        same(['one' => 1.0, 'two' => 2.5], $a->zRange(key_of('z'), 0, -1, true));
        same(2.5, $a->zScore(key_of('z'), 'two'));
        same(['one' => 1.0], $a->zPopMin(key_of('z')));
        $a->sAdd(key_of('set'), 'x', 'y');
        $members = $a->sMembers(key_of('set'));
        sort($members);
        same(['x', 'y'], $members);
    },

    'streams' => function (Redis $a, Redis $b) {
        $id = $a->xAdd(key_of('x'), '*', ['f' => 'v']);
        same([$id => ['f' => 'v']], $b->xRange(key_of('x'), '-', '+'));
        $a->xGroup('CREATE', key_of('x'), 'g', '0');
        same([key_of('x') => [$id => ['f' => 'v']]],
            $b->xReadGroup('g', 'c', [key_of('x') => '>'], 10));
        same(1, $a->xAck(key_of('x'), 'g', [$id]));
        same([], $b->xRead([key_of('x') => '$'], -1, 50) ?: []);
    },

    'pipelines' => function (Redis $a) {
        $pipeline = $a->pipeline();
        $expected = [];
        for ($i = 0; $i < 300; $i++) {
            $pipeline->set(key_of("p$i"), (string) $i)->get(key_of("p$i"));
            array_push($expected, true, (string) $i);
        }
        same($expected, $pipeline->exec());
    },

    'spread' => function (Redis $a) {
        global $options;
        $values = [];
        for ($i = 0; $i < 200; $i++) {
            $values["{$options['tag']}:spread$i"] = (string) $i;
        }
        same(true, $a->mSet($values));
        same(array_values($values), $a->mGet(array_keys($values)));
        same(200, $a->del(array_keys($values)));
    },

    'big' => function (Redis $a, Redis $b) {
        $value = str_repeat('nearcached', 600000);
        $a->set(key_of('big'), $value);
        same(true, $b->get(key_of('big')) === $value);
        same(true, $b->get(key_of('big')) === $value);
        $a->del(key_of('big'));
    },

    'scan' => function (Redis $a) {
        global $options;
        for ($i = 0; $i < 300; $i++) {
            $a->set("{$options['tag']}:scan:$i", '1');
        }
        $a->setOption(Redis::OPT_SCAN, Redis::SCAN_RETRY);
        $found = [];
        $cursor = null;
        while (($some = $a->scan($cursor, "{$options['tag']}:scan:*", 50)) !== false) {
            foreach ($some as $name) {
                $found[$name] = true;
            }
        }
        same(300, count($found));
    },

    'scripts' => function (Redis $a, Redis $b, Redis $around) {
        $around->script('flush');
        $script = "return redis.call('INCRBY', KEYS[1], ARGV[1])";
        $call = [[key_of('script'), 5], 1];
        same(false, $a->evalSha(sha1($script), ...$call));
        same(true, str_starts_with($a->getLastError(), 'NOSCRIPT'));
        $a->clearLastError();
        same(5, $a->eval($script, ...$call));
        same(10, $a->evalSha(sha1($script), ...$call));
        same(sha1($script), $a->script('load', $script));
        same('10', $b->get(key_of('script')));
    },

    'visible' => function (Redis $a, Redis $b, Redis $around) {
        for ($i = 0; $i < 100; $i++) {
            $a->set(key_of('seen'), (string) $i);
            same((string) $i, $b->get(key_of('seen')));
            same((string) $i, $b->get(key_of('seen')));
        }
        same('99', $around->get(key_of('seen')));
        for ($i = 0; $i < 5; $i++) {
            $around->set(key_of('seen'), "around$i");
            until(fn () => $b->get(key_of('seen')) === "around$i", 'the write around');
        }
    },

    'transactions' => function (Redis $a, Redis $b) {
        $a->set(key_of('t'), '1');
        same([2, '2'], $a->multi()->incr(key_of('t'))->get(key_of('t'))->exec());
        same('2', $b->get(key_of('t')));
        $a->watch(key_of('t'));
        $b->set(key_of('t'), 'other');
        same(false, $a->multi()->set(key_of('t'), 'mine')->exec());
        same('other', $a->get(key_of('t')));
        $a->multi();
        $a->set(key_of('t'), 'never');
        same(true, $a->discard());
        same('other', $b->get(key_of('t')));
    },

    'blocking' => function (Redis $a, Redis $b) {
        $pid = beside(fn () => open()->rPush(key_of('q2'), 'job'));
        same([key_of('q2'), 'job'], $b->blPop([key_of('q'), key_of('q2')], 5));
        pcntl_waitpid($pid, $status);
        $started = microtime(true);
        same([], $b->blPop([key_of('q')], 1));
        same(true, microtime(true) - $started >= 0.95);
    },

    'pubsub' => function (Redis $a) {
        $channel = key_of('news');
        $pid = beside(function () use ($channel) {
            $publisher = open();
            for ($i = 0; $i < 500; $i++) {
                $publisher->publish($channel, 'hello');
                usleep(10000);
            }
        });
        $got = [];
        try {
            $a->subscribe([$channel], function ($client, $from, $message) use (&$got) {
                $got[] = [$from, $message];
                $client->close(); // subscribe() ends by an exception only
            });
        } catch (RedisException) {
        } finally {
            posix_kill($pid, SIGKILL);
            pcntl_waitpid($pid, $status);
        }
        same([[$channel, 'hello']], $got);
    },

    'reconnect' => function (Redis $a, Redis $b) {
        $a->set(key_of('r'), '1');
        $id = $a->rawCommand('CLIENT', 'ID');
        same(1, $b->rawCommand('CLIENT', 'KILL', 'ID', (string) $id));
        // phpredis connects again by itself when it finds the connection closed.
        same(2, $a->incr(key_of('r')));
        same(true, $a->rawCommand('CLIENT', 'ID') !== $id);
    },
];

if (isset($options['list'])) {
    echo implode("\n", array_keys($steps)), "\n";
    exit(0);
}
$status = 0;
foreach ($steps as $name => $step) {
    if ($names !== null && !in_array($name, $names, true)) {
        continue;
    }
    try {
        $step(open(), open(), open((int) $options['around']));
        echo "ok $name\n";
    } catch (Throwable $error) {
        $status = 1;
        echo "FAIL $name: ", preg_replace('/\s+/', ' ', substr($error->getMessage(), 0, 300)),
            " (line {$error->getTrace()[0]['line']})\n";
    }
}
exit($status);
