#!/usr/bin/perl
# The Redis module of CPAN (libredis-perl), as Debian packages it.

use strict;
use warnings;

use Digest::SHA qw(sha1_hex);
use POSIX ();
use Redis;
use Time::HiRes qw(sleep time);

$| = 1;
my %options = (only => undef, cluster => 0, list => 0);
while (@ARGV) {
    my $name = substr shift @ARGV, 2;
    $options{$name} = $name =~ /^(cluster|list)$/ ? 1 : shift @ARGV;
}

sub key { return "{$options{tag}}$_[0]" }

sub connect_to {
    my (%more) = @_;
    return Redis->new(server => "127.0.0.1:" . ($more{port} || $options{port}),
        reconnect => 2, every => 50_000, cnx_timeout => 5, read_timeout => 8,
        %{ $more{with} || {} });
}

sub text {
    my ($value) = @_;
    return !defined $value ? 'undef'
        : ref $value ? '[' . join(', ', map { text($_) } @$value) . ']' : "'$value'";
}

sub same {
    my ($expected, $got) = map { text($_) } @_;
    die "expected $expected, got $got\n" if $expected ne $got;
    return;
}

sub fails {
    my ($pattern, $code) = @_;
    my $is_done = eval { $code->(); 1 };
    die "no error $pattern\n" if $is_done;
    die "unexpected error: $@" if $@ !~ $pattern;
    return;
}

sub until_true {
    my ($what, $check) = @_;
    my $end = time + 5;
    while (!$check->()) {
        die "waited in vain for $what\n" if time > $end;
        sleep 0.01;
    }
    return;
}

# Runs code in a process of its own, with connections of its own.
sub beside {
    my ($code) = @_;
    my $pid = fork;
    if (!$pid) {
        eval { $code->() };
        POSIX::_exit(0);
    }
    return $pid;
}

my @steps = (
    connect => sub {
        my ($a) = @_;
        my $named = connect_to(with => { name => 'scenario', conservative_reconnect => 1 });
        same('scenario', $named->client_getname);
        same(7, substr $a->info->{redis_version}, 0, 1);
        same('PONG', $a->ping);
        $named->quit;
    },
    databases => sub {
        my ($a, $b) = @_;
        return if $options{cluster};
        $b->select(3);
        $b->set(key('db'), 'three');
        $a->set(key('db'), 'zero');
        same(['three', 'zero'], [$b->get(key('db')), $a->get(key('db'))]);
        $b->del(key('db'));
    },
    strings => sub {
        my ($a) = @_;
        same('OK', $a->set(key('s'), 'one', 'NX', 'EX', 100));
        same(undef, $a->set(key('s'), 'two', 'NX'));
        same('one', $a->get(key('s')));
        same(41, $a->incrby(key('n'), 41));
        same(['one', undef, 41], [$a->mget(key('s'), key('none'), key('n'))]);
        fails(qr/not an integer/, sub { $a->incr(key('s')) });
        fails(qr/WRONGTYPE/, sub { $a->lpush(key('s'), 'x') });
    },
    hashes => sub {
        my ($a) = @_;
        $a->hmset(key('h'), f => 'v', n => 1);
        my %hash = $a->hgetall(key('h'));
        same([2, 'v', 1], [scalar(keys %hash), $hash{f}, $hash{n}]);
        same(5, $a->hincrby(key('h'), 'n', 4));
    },
    lists => sub {
        my ($a) = @_;
        same(3, scalar $a->rpush(key('l'), qw(a b c)));
        same([qw(a b c)], [$a->lrange(key('l'), 0, -1)]);
        same('a', $a->lpop(key('l')));
    },
    zsets => sub {
        my ($a) = @_;
        $a->zadd(key('z'), 1, 'one', 2.5, 'two');
        same([qw(one 1 two 2.5)], [$a->zrange(key('z'), 0, -1, 'WITHSCORES')]);
        same(2.5, $a->zscore(key('z'), 'two'));
        $a->sadd(key('set'), qw(x y));
        same([qw(x y)], [sort $a->smembers(key('set'))]);
    },
    streams => sub {
        my ($a, $b) = @_;
        my $id = $a->xadd(key('x'), '*', 'f', 'v');
        same([[$id, ['f', 'v']]], [$b->xrange(key('x'), '-', '+')]);
        $a->xgroup('CREATE', key('x'), 'g', 0);
        same([[key('x'), [[$id, ['f', 'v']]]]],
            [$b->xreadgroup('GROUP', 'g', 'c', 'STREAMS', key('x'), '>')]);
        same(1, $a->xack(key('x'), 'g', $id));
    },
    pipelines => sub {
        my ($a) = @_;
        my @got;
        for my $i (0 .. 299) {
            $a->set(key("p$i"), $i, sub { });
            $a->get(key("p$i"), sub { push @got, $_[0] });
        }
        $a->wait_all_responses;
        same([0 .. 299], \@got);
    },
    spread => sub {
        my ($a) = @_;
        my @names = map { "$options{tag}:spread$_" } 0 .. 199;
        same('OK', $a->mset(map { ($names[$_], $_) } 0 .. 199));
        same([0 .. 199], [$a->mget(@names)]);
        same(200, $a->del(@names));
    },
    big => sub {
        my ($a, $b) = @_;
        my $value = 'nearcached' x 600_000;
        $a->set(key('big'), $value);
        for (1 .. 2) {
            die "the value differs\n" if $b->get(key('big')) ne $value;
        }
        $a->del(key('big'));
    },
    scan => sub {
        my ($a) = @_;
        $a->set("$options{tag}:scan:$_", 1) for 0 .. 299;
        my (%found, $cursor);
        do {
            my ($next, $some) = $a->scan($cursor || 0, 'MATCH', "$options{tag}:scan:*",
                'COUNT', 50);
            $found{$_} = 1 for @$some;
            $cursor = $next;
        } while ($cursor);
        same(300, scalar keys %found);
    },
    scripts => sub {
        my ($a, $b, $around) = @_;
        $around->script_flush;
        my $script = "return redis.call('INCRBY', KEYS[1], ARGV[1])";
        fails(qr/NOSCRIPT/, sub { $a->evalsha(sha1_hex($script), 1, key('script'), 5) });
        same(5, $a->eval($script, 1, key('script'), 5));
        same(10, $a->evalsha(sha1_hex($script), 1, key('script'), 5));
        same(sha1_hex($script), $a->script_load($script));
        same(10, $b->get(key('script')));
    },
    visible => sub {
        my ($a, $b, $around) = @_;
        for my $i (0 .. 99) {
            $a->set(key('seen'), $i);
            same($i, $b->get(key('seen'))) for 1 .. 2;
        }
        same(99, $around->get(key('seen')));
        for my $i (0 .. 4) {
            $around->set(key('seen'), "around$i");
            until_true('the write around', sub { $b->get(key('seen')) eq "around$i" });
        }
    },
    transactions => sub {
        my ($a, $b) = @_;
        $a->set(key('t'), 1);
        $a->multi;
        $a->incr(key('t'));
        $a->get(key('t'));
        same([2, 2], [$a->exec]);
        same(2, $b->get(key('t')));
        $a->watch(key('t'));
        $b->set(key('t'), 'other');
        $a->multi;
        $a->set(key('t'), 'mine');
        $a->exec;
        same('other', $a->get(key('t')));
    },
    blocking => sub {
        my ($a, $b) = @_;
        my $pid = beside(sub { connect_to()->rpush(key('q2'), 'job') });
        same([key('q2'), 'job'], [$b->blpop(key('q'), key('q2'), 5)]);
        waitpid $pid, 0;
        my $started = time;
        same(undef, scalar $b->blpop(key('q'), 1));
        die "back too early\n" if time - $started < 0.95;
    },
    pubsub => sub {
        my ($a, $b) = @_;
        my $channel = key('news');
        my @got;
        my $on = sub { push @got, [$_[1], $_[0]] };
        $b->subscribe($channel, $on);
        my $end = time + 5;
        while (!@got && time < $end) {
            $a->publish($channel, 'hello');
            $b->wait_for_messages(0.05);
        }
        same([$channel, 'hello'], $got[0]);
        $b->unsubscribe($channel, $on);
        same('PONG', $b->ping);
    },
    reconnect => sub {
        my ($a, $b) = @_;
        $a->set(key('r'), 1);
        my $id = $a->client_id;
        same(1, $b->client_kill('ID', $id));
        same(2, $a->incr(key('r')));
        die "the same connection\n" if $a->client_id == $id;
    },
);

my (@names, %code);
while (my ($name, $code) = splice @steps, 0, 2) {
    push @names, $name;
    $code{$name} = $code;
}
if ($options{list}) {
    print map { "$_\n" } @names;
    exit 0;
}
@names = split /,/, $options{only} if defined $options{only};
my $status = 0;
for my $name (@names) {
    my $is_done = eval {
        local $SIG{ALRM} = sub { die "no end within 10 s\n" };
        alarm 10;
        $code{$name}->(connect_to(), connect_to(), connect_to(port => $options{around}));
        1;
    };
    my $error = $@;
    alarm 0;
    if ($is_done) {
        print "ok $name\n";
    } else {
        $status = 1;
        $error =~ s/\s+/ /g;
        print "FAIL $name: ", substr($error, 0, 300), "\n";
    }
}
exit $status;
