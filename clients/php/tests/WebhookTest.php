<?php

declare(strict_types=1);

namespace Fdpush\Tests;

use Fdpush\Exception\WebhookException;
use Fdpush\Tests\Support\BackEnd;
use Fdpush\Tests\Support\Server;
use Fdpush\Tests\Support\WebSocket;
use Fdpush\Webhook\Verifier;
use PHPUnit\Framework\TestCase;

/** Tests the verifier with requests of a server, and with changed requests. */
final class WebhookTest extends TestCase
{
    private const SECRET = 'the-webhook-secret-of-this-test';

    public function testEventsOfAServer(): void
    {
        $backEnd = new BackEnd();
        $server = Server::startWith(['FDPUSH_WEBHOOK_SECRET' => self::SECRET], '--webhook', $backEnd->url, '--node', 'n1');
        try {
            $socket = $server->connect('/chat?uid=10010');
            $batch = (new Verifier(self::SECRET))->events(...$backEnd->answer(204));
            self::assertSame(['n1', 0], [$batch->node, $batch->givenUp]);
            $event = $batch->events[0];
            self::assertSame([1, 'open', $socket->fd, '10010', '/chat'], [$event->seq, $event->type, $event->fd, $event->uid, $event->members['path']]);
            self::assertLessThanOrEqual($batch->sentMs, $event->timeMs);
        } finally {
            $server->stop();
            $backEnd->stop();
        }
    }

    public function testTheConnectHookOfAServer(): void
    {
        $backEnd = new BackEnd();
        $server = Server::startWith(['FDPUSH_WEBHOOK_SECRET' => self::SECRET], '--auth', 'webhook', '--auth-url', $backEnd->url);
        try {
            $client = WebSocket::begin($server->address, '/chat?room=7');
            [$body, $signature] = $backEnd->answer(200, '{"uid":"10010"}');
            self::assertSame(101, $client->finish());
            $request = (new Verifier(self::SECRET))->connect($body, $signature);
            self::assertSame(['GET', '/chat?room=7', $client->fd, '127.0.0.1'], [$request->method, $request->target, $request->fd, $request->address]);
            self::assertSame(['localhost', null], [$request->header('Host'), $request->header('cookie')]);
            self::assertTrue($server->client()->isOnline('10010'));
        } finally {
            $server->stop();
            $backEnd->stop();
        }
    }

    public function testAChangedBodyOrSignatureIsRefused(): void
    {
        $body = '{"node":"n","run":"r","sent_ms":1789000000000,"given_up":0,"events":[]}';
        $signature = self::sign($body);
        $verifier = new Verifier(self::SECRET);
        self::assertSame('n', $verifier->events($body, $signature, 1789000000)->node);
        $requests = [
            [$body . ' ', $signature],
            [$body, null],
            [$body, ''],
            [$body, substr($signature, 0, -1)],
            [$body, $signature . '0'],
            [$body, strtoupper($signature)],
            [$body, substr($signature, strlen('sha256='))],
            [$body, self::sign($body, 'another secret')],
            [$body, 'sha1=' . hash_hmac('sha1', $body, self::SECRET)],
        ];
        foreach ($requests as $index => [$changed, $header]) {
            try {
                $verifier->events($changed, $header, 1789000000);
                self::fail("request $index must be refused");
            } catch (WebhookException $error) {
                self::assertSame(401, $error->status);
            }
        }
    }

    public function testAnOldRequestIsRefused(): void
    {
        $body = '{"node":"n","run":"r","sent_ms":1789000000000,"given_up":0,"events":[]}';
        $verifier = new Verifier(self::SECRET, 60);
        foreach ([-60, 60] as $difference) {
            self::assertSame([], $verifier->events($body, self::sign($body), 1789000000 + $difference)->events);
        }
        foreach ([-61, 61] as $difference) {
            try {
                $verifier->events($body, self::sign($body), 1789000000 + $difference);
                self::fail("a request with a time difference of $difference s must be refused");
            } catch (WebhookException $error) {
                self::assertSame(401, $error->status);
            }
        }
        $this->expectException(WebhookException::class);
        $verifier->events($body, self::sign($body));
    }

    public function testTwoSecretsDuringARotation(): void
    {
        $verifier = new Verifier(['the old secret', self::SECRET]);
        $verifier->verify('{}', self::sign('{}'));
        $verifier->verify('{}', self::sign('{}', 'the old secret'));
        $this->expectException(WebhookException::class);
        $verifier->verify('{}', self::sign('{}', ''));
    }

    public function testAMalformedBodyWithAValidSignatureIsRefused(): void
    {
        foreach (['', '[]', '{', '{"node":1}', '{"node":"n","run":"r","sent_ms":"1","given_up":0,"events":[]}'] as $body) {
            try {
                (new Verifier(self::SECRET))->events($body, self::sign($body));
                self::fail("$body must be refused");
            } catch (WebhookException $error) {
                self::assertSame(400, $error->status);
            }
        }
    }

    public function testHeaderValuesThatAreNotUtf8(): void
    {
        $body = '{"node":"n","fd":1,"peer":"unix","address":null,"method":"GET","target":"/","headers":{"a":["1","2"],"b":["3"]},'
            . '"headers_base64":{"cookie":["bmFtZT3Vxcj9"]}}';
        $request = (new Verifier(self::SECRET))->connect($body, self::sign($body));
        self::assertSame(['1', '2'], $request->headers['a']);
        self::assertSame([null, '3', "name=\xd5\xc5\xc8\xfd"], [$request->header('A'), $request->header('B'), $request->header('Cookie')]);
    }

    public function testAnEmptySecretIsRefused(): void
    {
        foreach (['', [], ['a', '']] as $secrets) {
            try {
                new Verifier($secrets);
                self::fail('an empty secret must be refused');
            } catch (\InvalidArgumentException $error) {
                self::assertSame('the webhook secret is empty', $error->getMessage());
            }
        }
    }

    private static function sign(string $body, string $secret = self::SECRET): string
    {
        return 'sha256=' . hash_hmac('sha256', $body, $secret);
    }
}
