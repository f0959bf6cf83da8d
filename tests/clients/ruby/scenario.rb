# frozen_string_literal: true

# ruby-redis (redis-rb 4), as Debian packages it.

require 'digest'
require 'redis'
require 'set'
require 'timeout'

OPTIONS = { 'only' => nil, 'cluster' => false }
until ARGV.empty?
  name = ARGV.shift.delete_prefix('--')
  OPTIONS[name] = %w[cluster list].include?(name) ? true : ARGV.shift
end

def key(name)
  "{#{OPTIONS['tag']}}#{name}"
end

def connect(port = OPTIONS['port'], **options)
  Redis.new(host: '127.0.0.1', port: port.to_i, timeout: 8, reconnect_attempts: 1, **options)
end

def same(expected, got)
  raise "expected #{expected.inspect}, got #{got.inspect}" unless expected == got
end

def raises(pattern)
  yield
rescue Redis::CommandError => error
  raise "unexpected error: #{error.message}" unless error.message.match?(pattern)
else
  raise "no error #{pattern.inspect}"
end

def wait_until(what)
  limit = Time.now + 5
  until yield
    raise "waited in vain for #{what}" if Time.now > limit

    sleep 0.01
  end
end

STEPS = {
  'connect' => lambda do |a, _b, _around|
    named = connect(id: 'scenario')
    same('scenario', named.client(:getname))
    same('7', a.info['redis_version'][0])
    url = Redis.new(url: "redis://127.0.0.1:#{OPTIONS['port']}", tcp_keepalive: 60)
    same('PONG', url.ping)
    url.quit
  end,

  'databases' => lambda do |a, _b, _around|
    next if OPTIONS['cluster']

    second = connect(db: 3)
    second.set(key('db'), 'three')
    a.set(key('db'), 'zero')
    same(%w[three zero], [second.get(key('db')), a.get(key('db'))])
    second.del(key('db'))
  end,

  'strings' => lambda do |a, _b, _around|
    same(true, a.set(key('s'), 'one', ex: 100, nx: true))
    same(false, a.set(key('s'), 'two', nx: true))
    same('one', a.get(key('s')))
    same(41, a.incrby(key('n'), 41))
    same(42.5, a.incrbyfloat(key('n'), 1.5))
    same(['one', nil], a.mget(key('s'), key('none')))
    same({ key('s') => 'one', key('none') => nil }, a.mapped_mget(key('s'), key('none')))
    raises(/not an integer/) { a.incr(key('s')) }
    raises(/WRONGTYPE/) { a.lpush(key('s'), 'x') }
  end,

  'hashes' => lambda do |a, _b, _around|
    a.hset(key('h'), { 'f' => 'v', 'n' => 1 })
    same({ 'f' => 'v', 'n' => '1' }, a.hgetall(key('h')))
    same(5, a.hincrby(key('h'), 'n', 4))
    same(['v', nil], a.hmget(key('h'), 'f', 'none'))
    same(2, a.hscan_each(key('h')).to_a.size)
  end,

  'lists' => lambda do |a, _b, _around|
    same(3, a.rpush(key('l'), %w[a b c]))
    same(%w[a b c], a.lrange(key('l'), 0, -1))
    same('a', a.lmove(key('l'), key('l2'), 'LEFT', 'RIGHT'))
    same('b', a.lpop(key('l')))
  end,

  'zsets' => lambda do |a, _b, _around|
    a.zadd(key('z'), [[1, 'one'], [2.5, 'two'], ['+inf', 'last']])
    same([['one', 1.0], ['two', 2.5], ['last', Float::INFINITY]],
         a.zrange(key('z'), 0, -1, with_scores: true))
    same(2.5, a.zscore(key('z'), 'two'))
    same(['one', 1.0], a.zpopmin(key('z')))
    a.sadd(key('set'), %w[x y])
    same(%w[x y], a.smembers(key('set')).sort)
  end,

  'streams' => lambda do |a, b, _around|
    id = a.xadd(key('x'), { 'f' => 'v' })
    same([[id, { 'f' => 'v' }]], b.xrange(key('x')))
    a.xgroup(:create, key('x'), 'g', '0')
    same({ key('x') => [[id, { 'f' => 'v' }]] }, b.xreadgroup('g', 'c', key('x'), '>', count: 10))
    same(1, a.xack(key('x'), 'g', id))
    same({}, b.xread(key('x'), '$', block: 50))
  end,

  'pipelines' => lambda do |a, _b, _around|
    replies = a.pipelined do |pipeline|
      300.times do |i|
        pipeline.set(key("p#{i}"), i)
        pipeline.get(key("p#{i}"))
      end
    end
    same((0...300).flat_map { |i| ['OK', i.to_s] }, replies)
  end,

  'spread' => lambda do |a, _b, _around|
    names = (0...200).map { |i| "#{OPTIONS['tag']}:spread#{i}" }
    same('OK', a.mset(names.each_with_index.flat_map { |name, i| [name, i] }))
    same((0...200).map(&:to_s), a.mget(names))
    same(200, a.del(names))
  end,

  'big' => lambda do |a, b, _around|
    value = 'nearcached' * 600_000
    a.set(key('big'), value)
    2.times { same(true, b.get(key('big')) == value) }
    a.del(key('big'))
  end,

  'scan' => lambda do |a, _b, _around|
    300.times { |i| a.set("#{OPTIONS['tag']}:scan:#{i}", 1) }
    same(300, a.scan_each(match: "#{OPTIONS['tag']}:scan:*", count: 50).to_set.size)
  end,

  'scripts' => lambda do |a, b, around|
    around.script(:flush)
    script = "return redis.call('INCRBY', KEYS[1], ARGV[1])"
    sha = Digest::SHA1.hexdigest(script)
    raises(/NOSCRIPT/) { a.evalsha(sha, [key('script')], [5]) }
    same(5, a.eval(script, [key('script')], [5]))
    same(10, a.evalsha(sha, [key('script')], [5]))
    same(sha, a.script(:load, script))
    same(true, a.script(:exists, sha))
    same('10', b.get(key('script')))
  end,

  'visible' => lambda do |a, b, around|
    100.times do |i|
      a.set(key('seen'), i)
      2.times { same(i.to_s, b.get(key('seen'))) }
    end
    same('99', around.get(key('seen')))
    5.times do |i|
      around.set(key('seen'), "around#{i}")
      wait_until('the write around') { b.get(key('seen')) == "around#{i}" }
    end
  end,

  'transactions' => lambda do |a, b, _around|
    a.set(key('t'), 1)
    same([2, '2'], a.multi { |multi| multi.incr(key('t')); multi.get(key('t')) })
    same('2', b.get(key('t')))
    result = a.watch(key('t')) do |client|
      b.set(key('t'), 'other')
      client.multi { |multi| multi.set(key('t'), 'mine') }
    end
    same(nil, result)
    same('other', a.get(key('t')))
  end,

  'blocking' => lambda do |a, b, _around|
    pusher = Thread.new { a.rpush(key('q2'), 'job') }
    same([key('q2'), 'job'], b.blpop(key('q'), key('q2'), timeout: 5))
    pusher.join
    started = Time.now
    same(nil, b.blpop(key('q'), timeout: 1))
    same(true, Time.now - started >= 0.95)
    pusher = Thread.new { a.zadd(key('zq'), 7, 'm') }
    same([key('zq'), 'm', 7.0], b.bzpopmin(key('zq'), timeout: 5))
    pusher.join
  end,

  'pubsub' => lambda do |a, b, _around|
    got = []
    is_over = false
    publisher = Thread.new do
      until is_over
        a.publish(key('news'), 'hello')
        sleep 0.01
      end
    end
    begin
      b.subscribe_with_timeout(5, key('news')) do |on|
        on.message do |channel, message|
          got << [channel, message]
          b.unsubscribe(key('news'))
        end
      end
    ensure
      is_over = true
      publisher.join
    end
    same([key('news'), 'hello'], got[0])
    same('PONG', b.ping)
  end,

  'reconnect' => lambda do |a, b, _around|
    a.set(key('r'), 1)
    id = a.call(%w[CLIENT ID])
    same(1, b.call(['CLIENT', 'KILL', 'ID', id]))
    same(2, a.incr(key('r')))
    same(true, a.call(%w[CLIENT ID]) != id)
  end
}.freeze

if OPTIONS['list']
  puts STEPS.keys
  exit 0
end
names = OPTIONS['only']&.split(',') || STEPS.keys
status = 0
$stdout.sync = true
STEPS.slice(*names).each do |name, step|
  clients = [connect, connect, connect(OPTIONS['around'])]
  begin
    Timeout.timeout(10) { step.call(*clients) }
    puts "ok #{name}"
  rescue StandardError => error
    status = 1
    line = (error.backtrace || []).grep(/scenario\.rb/).last
    puts "FAIL #{name}: #{error.class} #{error.message.tr("\n", ' ')[0, 300]} (#{line})"
  end
  clients.each(&:close)
end
exit status
