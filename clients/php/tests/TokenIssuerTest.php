<?php

declare(strict_types=1);

namespace Fdpush\Tests;

use Fdpush\Tests\Support\Server;
use Fdpush\Tests\Support\WebSocket;
use Fdpush\TokenIssuer;
use PHPUnit\Framework\TestCase;

/** Tests tokens against a server that verifies them. */
final class TokenIssuerTest extends TestCase
{
    private const SECRET = 'a-secret-of-at-least-thirty-two-bytes';
    private static Server $server;

    public static function setUpBeforeClass(): void
    {
        self::$server = Server::startWith(
            ['FDPUSH_JWT_SECRET' => self::SECRET],
            '--auth', 'jwt', '--jwt-issuer', 'shop', '--jwt-audience', 'push',
        );
    }

    public static function tearDownAfterClass(): void
    {
        self::$server->stop();
    }

    public function testTheServerAcceptsTheToken(): void
    {
        $issuer = new TokenIssuer(self::SECRET, 'shop', 'push');
        $socket = self::$server->connect('/?token=' . $issuer->issue('张三', 60, ['a' => 'room', 'b' => 7]));
        $connection = self::$server->client()->connection($socket->fd);
        self::assertSame('张三', $connection?->uid);
        self::assertEqualsCanonicalizing(['room', '7'], $connection->groups);
        $socket = self::$server->connect('/?token=' . $issuer->issue(10010));
        self::assertSame('10010', self::$server->client()->connection($socket->fd)?->uid);
    }

    public function testTheServerRefusesOtherTokens(): void
    {
        $issuer = new TokenIssuer(self::SECRET, 'shop', 'push');
        $tokens = [
            (new TokenIssuer(strrev(self::SECRET), 'shop', 'push'))->issue('a'),
            (new TokenIssuer(self::SECRET, 'another', 'push'))->issue('a'),
            (new TokenIssuer(self::SECRET, 'shop'))->issue('a'),
            $issuer->issue('a', 60, [], time() - 120),
            $issuer->issue('a') . 'x',
        ];
        foreach ($tokens as $token) {
            self::assertSame(401, WebSocket::begin(self::$server->address, "/?token=$token")->finish());
        }
    }

    public function testTheTokenHasTheFormOfRfc7515(): void
    {
        $token = (new TokenIssuer(self::SECRET))->issue('a', 10, [], 1789000000);
        $parts = array_map(static fn (string $part): string => (string) base64_decode(strtr($part, '-_', '+/'), true), explode('.', $token));
        self::assertSame(['{"typ":"JWT","alg":"HS256"}', '{"sub":"a","iat":1789000000,"exp":1789000010}'], array_slice($parts, 0, 2));
        self::assertStringNotContainsString('=', $token);
    }

    public function testInvalidArgumentsAreRefused(): void
    {
        $issuer = new TokenIssuer(self::SECRET);
        $calls = [
            static fn () => new TokenIssuer('too short'),
            static fn () => $issuer->issue(''),
            static fn () => $issuer->issue(str_repeat('x', 129)),
            static fn () => $issuer->issue("\xff"),
            static fn () => $issuer->issue('a', 0),
            static fn () => $issuer->issue('a', 60, ['']),
            static fn () => $issuer->issue('a', 60, range(1, 1001)),
        ];
        foreach ($calls as $index => $call) {
            try {
                $call();
                self::fail("call $index must throw");
            } catch (\InvalidArgumentException $error) {
                self::assertStringNotContainsString(self::SECRET, (string) $error);
            }
        }
    }
}
