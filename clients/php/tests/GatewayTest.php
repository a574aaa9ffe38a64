<?php

declare(strict_types=1);

namespace Fdpush\Tests;

use Fdpush\Client;
use Fdpush\Context;
use Fdpush\Exception\ApiException;
use Fdpush\Exception\UnsupportedException;
use Fdpush\Gateway;
use Fdpush\Http\StreamTransport;
use Fdpush\Tests\Support\Server;
use Fdpush\Tests\Support\WebSocket;
use PHPUnit\Framework\TestCase;

/** Tests each method of `Gateway` against a server: its effect, its parameters, and the form of its answer. */
final class GatewayTest extends TestCase
{
    /** The public methods of GatewayWorker's `Gateway` with the names of their parameters. */
    private const METHODS = [
        'sendToAll' => ['message', 'client_id_array', 'exclude_client_id', 'raw'],
        'sendToClient' => ['client_id', 'message', 'raw'],
        'sendToCurrentClient' => ['message', 'raw'],
        'sendToUid' => ['uid', 'message', 'raw'],
        'sendToGroup' => ['group', 'message', 'exclude_client_id', 'raw'],
        'bindUid' => ['client_id', 'uid'],
        'unbindUid' => ['client_id', 'uid'],
        'joinGroup' => ['client_id', 'group'],
        'leaveGroup' => ['client_id', 'group'],
        'ungroup' => ['group'],
        'isUidOnline' => ['uid'],
        'isOnline' => ['client_id'],
        'getAllClientInfo' => ['group'],
        'getAllClientSessions' => ['group'],
        'getClientInfoByGroup' => ['group'],
        'getClientSessionsByGroup' => ['group'],
        'getAllClientIdCount' => [],
        'getAllClientCount' => [],
        'getClientIdCountByGroup' => ['group'],
        'getClientCountByGroup' => ['group'],
        'getClientIdListByGroup' => ['group'],
        'getAllClientIdList' => [],
        'getClientIdByUid' => ['uid'],
        'getUidListByGroup' => ['group'],
        'getUidCountByGroup' => ['group'],
        'getAllUidList' => [],
        'getAllUidCount' => [],
        'getUidByClientId' => ['client_id'],
        'getAllGroupIdList' => [],
        'getAllGroupUidCount' => [],
        'getAllGroupUidList' => [],
        'getAllGroupClientIdList' => [],
        'getAllGroupClientIdCount' => [],
        'closeClient' => ['client_id', 'message'],
        'closeCurrentClient' => ['message'],
        'destoryClient' => ['client_id'],
        'destoryCurrentClient' => [],
        'setSocketSession' => ['client_id', 'session_str'],
        'setSession' => ['client_id', 'session'],
        'updateSession' => ['client_id', 'session'],
        'getSession' => ['client_id'],
        'setBusinessWorker' => ['business_worker_instance'],
    ];

    private Server $server;

    protected function setUp(): void
    {
        $this->server = Server::start();
        Gateway::$registerAddress = $this->server->api;
        Gateway::$secretKey = Server::KEY;
    }

    protected function tearDown(): void
    {
        $this->server->stop();
        Context::clear();
        Gateway::setClient(null);
        Gateway::$binary = false;
    }

    public function testEachMethodHasTheParametersOfGatewayWorker(): void
    {
        foreach (self::METHODS as $name => $parameters) {
            $method = new \ReflectionMethod(Gateway::class, $name);
            $names = array_map(static fn (\ReflectionParameter $parameter): string => $parameter->getName(), $method->getParameters());
            self::assertSame($parameters, $names, $name);
            self::assertTrue($method->isPublic() && $method->isStatic(), $name);
        }
    }

    public function testEachMethodInTheDocumentIsTested(): void
    {
        $page = (string) file_get_contents(__DIR__ . '/../../../docs/gatewayworker.md');
        // Excludes the table of settings, because it lists properties and no methods.
        preg_match_all('/`([a-z]\w+)(?:\([^`]*\))?`(?=[^|]*\|)/m', $this->methodTables($page), $found);
        self::assertGreaterThan(35, count(array_unique($found[1])));
        $tests = (string) file_get_contents(__FILE__);
        foreach (array_unique($found[1]) as $name) {
            self::assertTrue(method_exists(Gateway::class, $name), "Gateway has no $name");
            self::assertStringContainsString("Gateway::$name(", $tests, "$name has no test");
        }
        foreach (array_keys(self::METHODS) as $name) {
            self::assertStringContainsString("Gateway::$name(", $tests, "$name has no test");
        }
    }

    public function testSendToAll(): void
    {
        [$a, $b] = [$this->server->connect(), $this->server->connect()];
        Gateway::sendToAll('to all');
        Gateway::sendToAll('to a', [$a->fd, (string) $a->fd]);
        Gateway::sendToAll('to no client', []);
        Gateway::sendToAll('not to a', null, $a->fd);
        Gateway::sendToAll('not to b', null, [$b->fd]);
        Gateway::sendToAll('to b only', [$a->fd, $b->fd], [$a->fd]);
        Gateway::sendToAll(5, null, []);
        self::assertSame(['to all', 'to a', 'not to b', '5'], self::texts($a, 4));
        self::assertSame(['to all', 'not to a', 'to b only', '5'], self::texts($b, 4));
    }

    public function testSendToClient(): void
    {
        $socket = $this->server->connect();
        self::assertTrue(Gateway::sendToClient((string) $socket->fd, '你好'));
        self::assertFalse(Gateway::sendToClient(9999, 'x'));
        Context::$client_id = $socket->fd;
        self::assertTrue(Gateway::sendToCurrentClient('to the current client'));
        Gateway::$binary = true;
        self::assertTrue(Gateway::sendToClient($socket->fd, "\x00\xff"));
        self::assertSame(['你好', 'to the current client'], self::texts($socket, 2));
        self::assertSame([WebSocket::BINARY, "\x00\xff"], $socket->frame());
    }

    public function testSendToUid(): void
    {
        [$a, $b] = [$this->server->connect('/?uid=10010'), $this->server->connect('/?uid=b')];
        Gateway::sendToUid(10010, 'to a');
        Gateway::sendToUid(['x' => '10010', 'y' => 'b', 'z' => 10010], 'to both');
        Gateway::sendToUid([], 'to no user');
        // `sendToUid` must send several pushes, because the server accepts at most 10,000 uids in one push.
        Gateway::sendToUid([...range(1, 12_000), 'b'], 'to many');
        self::assertSame(['to a', 'to both', 'to many'], self::texts($a, 3));
        self::assertSame(['to both', 'to many'], self::texts($b, 2));
    }

    public function testSendToGroup(): void
    {
        [$a, $b] = [$this->server->connect(), $this->server->connect()];
        Gateway::joinGroup($a->fd, 'room');
        Gateway::joinGroup($a->fd, 7);
        Gateway::joinGroup($b->fd, 'room');
        Gateway::sendToGroup('room', 'to the room');
        Gateway::sendToGroup(7, 'to group 7');
        Gateway::sendToGroup(['x' => 'room', 'y' => 7], 'once');
        Gateway::sendToGroup('room', 'not to a', [$a->fd]);
        Gateway::sendToGroup('room', 'not to b', (string) $b->fd);
        Gateway::sendToGroup([], 'to no group');
        self::assertSame(['to the room', 'to group 7', 'once', 'not to b'], self::texts($a, 4));
        self::assertSame(['to the room', 'once', 'not to a'], self::texts($b, 3));
    }

    public function testUids(): void
    {
        [$a, $b] = [$this->server->connect(), $this->server->connect()];
        Gateway::bindUid($a->fd, 10010);
        Gateway::bindUid((string) $b->fd, 'b');
        self::assertSame([1, 1, 0], [Gateway::isUidOnline('10010'), Gateway::isUidOnline('b'), Gateway::isUidOnline('c')]);
        self::assertSame([[$a->fd], []], [Gateway::getClientIdByUid(10010), Gateway::getClientIdByUid('c')]);
        self::assertSame([10010 => [$a->fd], 'c' => [], 'b' => [$b->fd]], Gateway::batchGetClientIdByUid([10010, 'c', 'b']));
        self::assertSame(['10010', null], [Gateway::getUidByClientId($a->fd), Gateway::getUidByClientId(9999)]);
        self::assertSame([10010 => '10010', 'b' => 'b'], Gateway::getAllUidList());
        self::assertSame(2, Gateway::getAllUidCount());
        Gateway::unbindUid($a->fd, 10010);
        self::assertSame([0, 1], [Gateway::isUidOnline(10010), Gateway::isOnline($a->fd)]);
        self::assertNull(Gateway::getUidByClientId($a->fd));
    }

    public function testClients(): void
    {
        [$a, $b] = [$this->server->connect(), $this->server->connect()];
        self::assertSame([1, 1, 0], [Gateway::isOnline($a->fd), Gateway::isOnline((string) $b->fd), Gateway::isOnline(9999)]);
        self::assertSame([2, 2, 2, 2], [Gateway::getAllClientIdCount(), Gateway::getAllClientCount(), Gateway::getClientIdCountByGroup(), Gateway::getClientCountByGroup()]);
        self::assertSame([$a->fd => $a->fd, $b->fd => $b->fd], Gateway::getAllClientIdList());
    }

    public function testGroups(): void
    {
        [$a, $b, $c] = [$this->server->connect('/?uid=5'), $this->server->connect('/?uid=5'), $this->server->connect()];
        foreach ([$a, $b, $c] as $socket) {
            Gateway::joinGroup($socket->fd, 'room');
        }
        Gateway::joinGroup($a->fd, 7);
        $room = [$a->fd => $a->fd, $b->fd => $b->fd, $c->fd => $c->fd];
        self::assertSame($room, Gateway::getClientIdListByGroup('room'));
        self::assertSame($room, Gateway::getClientIdListByGroup(['room', 7]));
        self::assertSame([3, 1, 0], [Gateway::getClientIdCountByGroup('room'), Gateway::getClientCountByGroup(7), Gateway::getClientCountByGroup('none')]);
        self::assertSame([[5 => '5'], [5 => '5'], []], [Gateway::getUidListByGroup('room'), Gateway::getUidListByGroup([7, 'none']), Gateway::getUidListByGroup('none')]);
        self::assertSame([1, 0], [Gateway::getUidCountByGroup('room'), Gateway::getUidCountByGroup('none')]);
        self::assertEquals([7 => '7', 'room' => 'room'], Gateway::getAllGroupIdList());
        self::assertEquals([7 => 1, 'room' => 3], Gateway::getAllGroupClientIdCount());
        self::assertEquals([7 => [$a->fd => $a->fd], 'room' => $room], Gateway::getAllGroupClientIdList());
        self::assertEquals([7 => [5 => '5'], 'room' => [5 => '5']], Gateway::getAllGroupUidList());
        self::assertEquals([7 => 1, 'room' => 1], Gateway::getAllGroupUidCount());
        Gateway::leaveGroup($c->fd, 'room');
        self::assertSame(2, Gateway::getClientIdCountByGroup('room'));
        Gateway::ungroup('room');
        self::assertSame([7 => '7'], Gateway::getAllGroupIdList());
    }

    public function testSessions(): void
    {
        [$a, $b] = [$this->server->connect(), $this->server->connect()];
        self::assertSame([[], null], [Gateway::getSession($a->fd), Gateway::getSession(9999)]);
        Gateway::setSession($a->fd, ['name' => '张三', 'cart' => ['x', 'y']]);
        Gateway::updateSession($a->fd, ['cart' => ['z'], 'age' => 5]);
        $session = ['name' => '张三', 'cart' => ['z'], 'age' => 5];
        self::assertEquals($session, Gateway::getSession($a->fd));
        Gateway::updateSession($a->fd, ['cart' => null]);
        unset($session['cart']);
        Gateway::joinGroup($a->fd, 'room');
        self::assertEquals([$a->fd => $session, $b->fd => []], Gateway::getAllClientSessions());
        self::assertEquals([$a->fd => $session], Gateway::getAllClientSessions('room'));
        self::assertEquals([$a->fd => $session], Gateway::getClientSessionsByGroup('room'));
        self::assertSame([[], []], [Gateway::getClientSessionsByGroup('none'), Gateway::getClientSessionsByGroup('')]);
        Gateway::setSession($a->fd, []);
        self::assertSame([], Gateway::getSession($a->fd));
        // A client may disconnect before the back end handles its event. For such a client, these calls must do nothing.
        Gateway::setSession(9999, ['a' => 1]);
        Gateway::updateSession(9999, ['a' => 1]);
    }

    public function testDeprecatedMethodsWarn(): void
    {
        $socket = $this->server->connect();
        Gateway::joinGroup($socket->fd, 'room');
        $warnings = [];
        set_error_handler(static function (int $level, string $message) use (&$warnings): bool {
            $warnings[] = [$level, $message];
            return true;
        });
        try {
            self::assertSame([$socket->fd => []], Gateway::getAllClientInfo());
            self::assertSame([$socket->fd => []], Gateway::getClientInfoByGroup('room'));
        } finally {
            restore_error_handler();
        }
        self::assertSame([
            [E_USER_DEPRECATED, 'Gateway::getAllClientInfo is deprecated: use Gateway::getAllClientSessions'],
            [E_USER_DEPRECATED, 'Gateway::getClientInfoByGroup is deprecated: use Gateway::getClientSessionsByGroup'],
        ], $warnings);
    }

    public function testCloseClient(): void
    {
        [$a, $b] = [$this->server->connect(), $this->server->connect()];
        self::assertTrue(Gateway::closeClient($a->fd, 'bye'));
        self::assertSame('bye', $a->next());
        self::assertSame([1000, ''], $a->closed());
        self::assertFalse(Gateway::closeClient($a->fd));
        Context::$client_id = (string) $b->fd;
        self::assertTrue(Gateway::closeCurrentClient());
        self::assertSame([1000, ''], $b->closed());
    }

    public function testDestroyClient(): void
    {
        [$a, $b] = [$this->server->connect(), $this->server->connect()];
        self::assertTrue(Gateway::destoryClient($a->fd));
        self::assertTrue($a->isDropped());
        self::assertFalse(Gateway::destoryClient($a->fd));
        Context::$client_id = $b->fd;
        self::assertTrue(Gateway::destoryCurrentClient());
        self::assertTrue($b->isDropped());
    }

    public function testUnsupportedCallsNameTheReason(): void
    {
        $calls = [
            'webhook' => static fn () => Gateway::setBusinessWorker(new \stdClass()),
            'setSession' => static fn () => Gateway::setSocketSession(1, ''),
            'encodes each frame' => static fn () => Gateway::sendToAll('x', null, null, true),
            'Gateway::$binary' => static fn () => Gateway::sendToClient(1, 'x', true),
            '$raw' => static fn () => Gateway::sendToUid(1, 'x', true),
            '$raw is not' => static fn () => Gateway::sendToGroup(1, 'x', null, true),
            'sendToCurrentClient needs' => static fn () => Gateway::sendToCurrentClient('x'),
            'closeCurrentClient needs' => static fn () => Gateway::closeCurrentClient(),
            'destoryCurrentClient needs' => static fn () => Gateway::destoryCurrentClient(),
        ];
        foreach ($calls as $reason => $call) {
            try {
                $call();
                self::fail("expected: $reason");
            } catch (UnsupportedException $error) {
                self::assertStringContainsString($reason, $error->getMessage());
            }
        }
    }

    public function testAClientIdOfGatewayWorkerIsRefused(): void
    {
        foreach (['7f0000010b5400000001', '', '0', -1, '1.5'] as $client_id) {
            try {
                Gateway::isOnline($client_id);
                self::fail("\"$client_id\" must be refused");
            } catch (\InvalidArgumentException $error) {
                self::assertStringContainsString('must be an fd', $error->getMessage());
            }
        }
    }

    public function testCommandsForAnEndedConnectionDoNothing(): void
    {
        Gateway::bindUid(9999, 'a');
        Gateway::unbindUid(9999, 'a');
        Gateway::joinGroup(9999, 'a');
        Gateway::leaveGroup(9999, 'a');
        Gateway::ungroup('a');
        self::assertSame([0, []], [Gateway::getAllUidCount(), Gateway::getAllGroupIdList()]);
    }

    public function testAnErrorOfTheServerThrows(): void
    {
        $this->expectException(ApiException::class);
        Gateway::joinGroup(1, '');
    }

    public function testTheServerCanChange(): void
    {
        $other = Server::start();
        try {
            $socket = $other->connect();
            self::assertSame(0, Gateway::getAllClientCount());
            Gateway::$registerAddress = "http://{$other->api}";
            self::assertSame(1, Gateway::getAllClientCount());
            Gateway::setClient(new Client(new StreamTransport($this->server->api, Server::KEY)));
            self::assertSame(0, Gateway::getAllClientCount());
            self::assertSame(0, Gateway::client()->stats()->users);
            self::assertGreaterThan(0, $socket->fd);
        } finally {
            $other->stop();
        }
    }

    /** Returns the rows of the tables whose first column has methods of `Gateway`. */
    private function methodTables(string $page): string
    {
        $cells = '';
        foreach (explode("\n\n", $page) as $table) {
            if (str_starts_with($table, '| `Gateway::` |') || str_starts_with($table, "| | HTTP API |")) {
                foreach (array_slice(explode("\n", $table), 2) as $row) {
                    $cells .= explode(' | ', $row, 2)[0] . " |\n";
                }
            }
        }
        return $cells;
    }

    /** @return list<string> the next messages, without notices of joins and leaves */
    private static function texts(WebSocket $socket, int $count): array
    {
        return array_map(static fn (): string => $socket->message(), range(1, $count));
    }
}
