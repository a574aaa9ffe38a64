<?php

declare(strict_types=1);

namespace Fdpush\Tests;

use Fdpush\Client;
use Fdpush\Exception\ApiException;
use Fdpush\Exception\TransportException;
use Fdpush\Http\CurlTransport;
use Fdpush\Http\Response;
use Fdpush\Http\StreamTransport;
use Fdpush\Http\Transport;
use Fdpush\Push;
use Fdpush\Result\Connection;
use Fdpush\Result\Group;
use Fdpush\Result\Member;
use Fdpush\Result\User;
use Fdpush\Target;
use Fdpush\Tests\Support\Server;
use Fdpush\Tests\Support\WebSocket;
use PHPUnit\Framework\TestCase;

/** Tests each call of the API against a server. */
final class ClientTest extends TestCase
{
    private Server $server;
    private Client $client;

    protected function setUp(): void
    {
        $this->server = Server::start();
        $this->client = $this->server->client();
    }

    protected function tearDown(): void
    {
        $this->server->stop();
    }

    public function testEachContentArrives(): void
    {
        $socket = $this->server->connect('/?uid=10010');
        $result = $this->client->push(Push::to(Target::uid(10010))->data(['text' => '你好', 'list' => [], 'price' => 1.0])->id(7));
        self::assertSame([1, 1, 0, [], 7], [$result->matched, $result->queued, $result->dropped, $result->offline, $result->id]);
        self::assertSame('{"type":"message","data":{"text":"你好","list":[],"price":1.0}}', $socket->next());
        $this->client->push(Push::to(Target::uid('10010'))->text('raw "text"'));
        self::assertSame('raw "text"', $socket->next());
        $this->client->push(Push::to(Target::fd($socket->fd))->binary("\x00\xff"));
        self::assertSame([WebSocket::BINARY, "\x00\xff"], $socket->frame());
        $this->client->push(Push::to(Target::all())->data(null)->key('score')->uncompressed());
        self::assertSame('{"type":"message","all":true,"data":null}', $socket->next());
    }

    public function testEachTargetAndExclusion(): void
    {
        [$a, $b] = [$this->server->connect('/?uid=a'), $this->server->connect('/?uid=5')];
        $this->client->join(Target::uid('a'), ['room', 7]);
        $this->client->join(Target::uids(['gap' => 5]), 'room');
        $targets = [
            [Target::uids(['a', 5, 'offline']), 2],
            [Target::fds([$a->fd, $b->fd, 9999]), 2],
            [Target::group('room'), 2],
            [Target::group(7), 1],
            [Target::groups(['room', '7']), 2],
            [Target::uids([]), 0],
            [Target::all(), 2],
        ];
        foreach ($targets as [$target, $matched]) {
            self::assertSame($matched, $this->client->push(Push::to($target)->text('x'))->matched);
        }
        self::assertSame(['offline'], $this->client->push(Push::to(Target::uids(['a', 'offline']))->text('x'))->offline);
        foreach ([Target::fd($a->fd), Target::fds([$a->fd]), Target::uid('a'), Target::uids(['a']), Target::group(7), Target::groups(['7'])] as $excluded) {
            $result = $this->client->push(Push::to(Target::all())->text('x')->except($excluded));
            self::assertSame(1, $result->matched);
        }
        self::assertSame(0, $this->client->push(Push::to(Target::all())->text('x')->except(Target::fd($a->fd), Target::uid(5)))->matched);
        self::assertSame(2, $this->client->push(Push::to(Target::all())->text('x')->except())->matched);
    }

    public function testUidsAndGroupsChange(): void
    {
        $socket = $this->server->connect();
        $bound = $this->client->bind($socket->fd, 10010);
        self::assertSame([1, 1], [$bound->matched, $bound->changed]);
        $target = Target::uid('10010');
        self::assertSame(1, $this->client->join($target, ['a', 'b'])->changed);
        self::assertSame(0, $this->client->join($target, 'a')->changed);
        self::assertEqualsCanonicalizing(['a', 'b'], $this->client->connection($socket->fd)?->groups);
        self::assertSame(1, $this->client->leave($target, 'a')->changed);
        self::assertSame(1, $this->client->ungroup(['b'])->changed);
        self::assertSame([], $this->client->connection($socket->fd)?->groups);
        self::assertSame(1, $this->client->unbind(Target::fds([$socket->fd]))->changed);
        self::assertNull($this->client->connection($socket->fd)?->uid);
    }

    public function testACommandByFdOrUidRefusesGroups(): void
    {
        $this->expectException(\InvalidArgumentException::class);
        $this->client->join(Target::group('a'), 'b');
    }

    public function testCloseAndAbort(): void
    {
        [$a, $b] = [$this->server->connect('/?uid=a'), $this->server->connect('/?uid=b')];
        $this->client->push(Push::to(Target::uid('a'))->text('last'));
        self::assertSame(1, $this->client->close(Target::uid('a'), 4000, 'signed out'));
        self::assertSame('last', $a->next());
        self::assertSame([4000, 'signed out'], $a->closed());
        self::assertSame(0, $this->client->close(Target::uid('a')));
        self::assertSame(1, $this->client->abort(Target::fd($b->fd)));
        self::assertTrue($b->isDropped());
    }

    public function testQueries(): void
    {
        [$a, $b, $c] = [$this->server->connect('/?uid=a'), $this->server->connect('/?uid=7'), $this->server->connect('/?uid=7')];
        $this->client->join(Target::fds([$a->fd, $b->fd]), ['room', '..', 'a/b%+ ü']);
        $online = $this->client->online(['a', 7, 'offline']);
        self::assertEqualsCanonicalizing(['a', 7], array_keys($online->online));
        self::assertEqualsCanonicalizing([$b->fd, $c->fd], $online->fds('7'));
        self::assertSame([[$a->fd], [], ['offline']], [$online->fds('a'), $online->fds('offline'), $online->offline]);
        self::assertSame([true, false], [$online->isOnline(7), $online->isOnline('offline')]);
        self::assertSame([true, false], [$this->client->isOnline('7'), $this->client->isOnline('offline')]);

        self::assertEquals([new User('7', 2), new User('a', 1)], iterator_to_array($this->client->users()));
        self::assertEquals([new User('a', 1)], iterator_to_array($this->client->users('7')));
        self::assertEquals([new Group('..', 2), new Group('a/b%+ ü', 2), new Group('room', 2)], iterator_to_array($this->client->groups()));
        foreach (['room', '..', 'a/b%+ ü'] as $group) {
            self::assertEquals([new Member($a->fd, 'a'), new Member($b->fd, '7')], iterator_to_array($this->client->members($group)));
            self::assertSame(2, $this->client->memberCount($group));
        }
        self::assertSame([[], 0], [iterator_to_array($this->client->members('none')), $this->client->memberCount('none')]);

        $fds = static fn (iterable $connections): array => array_map(static fn (Connection $one): int => $one->fd, iterator_to_array($connections));
        self::assertSame([$a->fd, $b->fd, $c->fd], $fds($this->client->connections()));
        self::assertSame([$a->fd, $b->fd, $c->fd], $fds($this->client->connections(pageSize: 1)), 'three pages');
        self::assertSame([$c->fd], $fds($this->client->connections(after: $b->fd)));
        self::assertSame([$b->fd, $c->fd], $fds($this->client->userConnections(7, pageSize: 1)));
        self::assertSame([], $fds($this->client->userConnections('offline')));

        $connection = $this->client->connection($a->fd);
        self::assertNotNull($connection);
        self::assertEqualsCanonicalizing(['..', 'a/b%+ ü', 'room'], $connection->groups);
        self::assertSame(['a', '127.0.0.1', null, 0], [$connection->uid, $connection->address, $connection->tls, $connection->messagesIn]);
        self::assertStringStartsWith('127.0.0.1:', $connection->peer);
        self::assertNull($this->client->connection(9999));

        $stats = $this->client->stats();
        self::assertSame([3, 2, 3, false], [$stats->open, $stats->users, $stats->groups, $stats->isDraining]);
        self::assertSame($stats->version, $stats->all['version']);
        self::assertTrue($this->client->isReady());
    }

    public function testAttributes(): void
    {
        $socket = $this->server->connect();
        $fd = $socket->fd;
        self::assertSame([], $this->client->attributes($fd));
        self::assertEquals(['theme' => 'dark', 'draft' => 'x'], $this->client->setAttributes($fd, ['theme' => 'dark', 'draft' => 'x']));
        self::assertSame(['theme' => 'dark'], $this->client->mergeAttributes($fd, ['draft' => null]));
        self::assertSame(['theme' => 'dark'], $this->client->mergeAttributes($fd, []));
        self::assertSame([], $this->client->setAttributes($fd, []));
        self::assertNull($this->client->attributes(9999));
        self::assertNull($this->client->setAttributes(9999, ['a' => 1]));
        self::assertNull($this->client->mergeAttributes(9999, ['a' => 1]));
    }

    public function testAnErrorHasItsStatusCodeAndMessage(): void
    {
        try {
            $this->client->push(Push::to(Target::uid(''))->text('x')->id('mine'));
            self::fail('an empty uid must be refused');
        } catch (ApiException $error) {
            self::assertSame([400, 'bad_request', 'mine'], [$error->status, $error->errorCode, $error->id]);
            self::assertStringContainsString('1 to 128 bytes', $error->getMessage());
        }
        try {
            (new Client($this->server->api, 'wrong-key'))->stats();
            self::fail('a wrong key must be refused');
        } catch (ApiException $error) {
            self::assertSame([401, 'unauthorized'], [$error->status, $error->errorCode]);
            self::assertStringNotContainsString('wrong-key', (string) $error);
        }
        self::assertTrue((new Client($this->server->api))->isReady(), '/readyz needs no key');
    }

    public function testARequestWithoutAnAnswerThrows(): void
    {
        $listener = stream_socket_server('tcp://127.0.0.1:0');
        self::assertNotFalse($listener);
        $address = (string) stream_socket_get_name($listener, false);
        foreach ([new CurlTransport($address, 'secret-key', 0.01), new StreamTransport($address, 'secret-key', 0.01)] as $transport) {
            try {
                (new Client($transport))->stats();
                self::fail('the timeout must end the request');
            } catch (TransportException $error) {
                self::assertStringStartsWith("http://$address: ", $error->getMessage());
                self::assertStringNotContainsString('secret-key', (string) $error);
            }
        }
        fclose($listener);

        // A bound socket that does not listen refuses connections, and no other process can take its port.
        $bound = socket_create(AF_INET, SOCK_STREAM, SOL_TCP);
        self::assertNotFalse($bound);
        socket_bind($bound, '127.0.0.1');
        socket_getsockname($bound, $host, $port);
        $address = "$host:$port";
        foreach ([new CurlTransport($address), new StreamTransport($address)] as $transport) {
            try {
                (new Client($transport))->stats();
                self::fail('a closed port must be reported');
            } catch (TransportException $error) {
                self::assertStringStartsWith("http://$address: ", $error->getMessage());
            }
        }
    }

    public function testAnAnswerOfAnotherServer(): void
    {
        try {
            (new Client(self::transport(new Response(502, '<html>Bad Gateway'))))->stats();
            self::fail('status 502 must throw');
        } catch (ApiException $error) {
            self::assertSame([502, '', 'HTTP status 502: <html>Bad Gateway'], [$error->status, $error->errorCode, $error->getMessage()]);
        }
        foreach (['<html>', '[]', '{"version":1}', ''] as $body) {
            try {
                (new Client(self::transport(new Response(200, $body))))->stats();
                self::fail("$body must throw");
            } catch (TransportException $error) {
                self::assertSame($body, $error->received);
            }
        }
        $this->expectException(ApiException::class);
        (new Client(self::transport(new Response(404, 'no such page'))))->connection(1);
    }

    public function testOneConnectionServesAllRequests(): void
    {
        $before = $this->client->stats()->all['accepted'];
        for ($i = 0; $i < 50; $i++) {
            $this->client->isOnline('a');
        }
        iterator_to_array($this->client->batch([Push::to(Target::uid('a'))->text('x')]));
        self::assertSame($before, $this->client->stats()->all['accepted']);
    }

    public function testAForkedProcessHasItsOwnConnection(): void
    {
        $before = $this->client->stats()->all['accepted'];
        [$ours, $theirs] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
        $child = pcntl_fork();
        if ($child === 0) {
            fwrite($theirs, (string) $this->client->stats()->open);
            // SIGKILL ends the process without PHPUnit's shutdown functions.
            posix_kill(posix_getpid(), SIGKILL);
        }
        fclose($theirs);
        stream_set_timeout($ours, Server::TIMEOUT);
        self::assertSame('0', stream_get_contents($ours));
        pcntl_waitpid($child, $status);
        self::assertSame($before + 1, $this->client->stats()->all['accepted']);
    }

    public function testWithoutCurl(): void
    {
        $socket = $this->server->connect('/?uid=a');
        $client = new Client(new StreamTransport($this->server->api, Server::KEY, Server::TIMEOUT));
        self::assertSame(1, $client->push(Push::to(Target::uid('a'))->text('x'))->queued);
        self::assertSame('x', $socket->next());
        self::assertNull($client->connection(9999));
        self::assertSame(['a' => 1], $client->mergeAttributes($socket->fd, ['a' => 1]));
        $results = iterator_to_array($client->batch([Push::to(Target::uid('a'))->text('y'), Push::to(Target::uid(''))->text('z')]));
        self::assertSame([1, 'bad_request'], [$results[0]->queued, $results[1]->errorCode]);
        $this->expectException(\InvalidArgumentException::class);
        new StreamTransport('unix:/nowhere');
    }

    public function testUnixSocket(): void
    {
        $directory = sys_get_temp_dir() . '/fdpush-' . bin2hex(random_bytes(8));
        mkdir($directory, 0700);
        $server = Server::startAt("unix:$directory/api.sock");
        try {
            self::assertSame(0, (new Client("unix:$directory/api.sock", Server::KEY, Server::TIMEOUT))->stats()->open);
        } finally {
            $server->stop();
            @unlink("$directory/api.sock");
            rmdir($directory);
        }
    }

    public function testTls(): void
    {
        $directory = sys_get_temp_dir() . '/fdpush-' . bin2hex(random_bytes(8));
        mkdir($directory, 0700);
        [$certificate, $key] = ["$directory/cert.pem", "$directory/key.pem"];
        exec(escapeshellarg((string) getenv('FDPUSH_BIN')) . ' cert --for 127.0.0.1 --out ' . escapeshellarg($directory)
            . ' --cert-file cert.pem --key-file key.pem 2>&1', $output, $status);
        self::assertSame(0, $status, implode("\n", $output));
        $server = Server::startAt('tls:127.0.0.1:0', '--tls-cert', $certificate, '--tls-key', $key);
        $address = 'https://' . preg_replace('~^tls:~', '', $server->api);
        try {
            $client = new Client(new CurlTransport($address, Server::KEY, Server::TIMEOUT, [CURLOPT_CAINFO => $certificate]));
            self::assertSame(0, $client->stats()->open);
            $this->expectException(TransportException::class);
            (new Client($address, Server::KEY, Server::TIMEOUT))->stats();
        } finally {
            $server->stop();
            array_map(unlink(...), [$certificate, $key]);
            rmdir($directory);
        }
    }

    public function testInvalidArgumentsAreRefusedBeforeTheRequest(): void
    {
        $calls = [
            static fn () => new Client('ftp://127.0.0.1'),
            static fn () => new Client('http://user:password@127.0.0.1'),
            static fn () => new Client('http://127.0.0.1/path'),
            static fn () => new Client('http://127.0.0.1', "key\r\nX: y"),
            static fn () => Push::to(Target::all())->text("\xff"),
            static fn () => Push::to(Target::uid("\xff")),
            static fn () => Push::to(Target::all())->data(NAN),
            static fn () => Push::to(Target::all())->except(Target::all()),
        ];
        foreach ($calls as $index => $call) {
            try {
                $call();
                self::fail("call $index must throw");
            } catch (\InvalidArgumentException $error) {
                self::assertStringNotContainsString('password', $error->getMessage());
            }
        }
        $this->expectException(\LogicException::class);
        $this->client->push(Push::to(Target::all()));
    }

    private static function transport(Response $response): Transport
    {
        return new class ($response) implements Transport {
            public function __construct(private readonly Response $response)
            {
            }

            public function send(string $method, string $path, ?string $body = null, string $type = self::JSON): Response
            {
                return $this->response;
            }
        };
    }
}
