<?php

declare(strict_types=1);

namespace Fdpush\Tests;

use Fdpush\Client;
use Fdpush\Exception\ApiException;
use Fdpush\Exception\TransportException;
use Fdpush\Http\Response;
use Fdpush\Http\Transport;
use Fdpush\Push;
use Fdpush\Result\PushError;
use Fdpush\Result\PushResult;
use Fdpush\Target;
use Fdpush\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

/** Tests batches: order, laziness, memory, failures. */
final class BatchTest extends TestCase
{
    private static Server $server;

    public static function setUpBeforeClass(): void
    {
        self::$server = Server::start();
    }

    public static function tearDownAfterClass(): void
    {
        self::$server->stop();
    }

    public function testResultsAreInOrderWithTheirKeys(): void
    {
        $socket = self::$server->connect('/?uid=a');
        $pushes = [
            'first' => Push::to(Target::uid('a'))->text('1'),
            'invalid' => Push::to(Target::uid(''))->text('2')->id('two'),
            'offline' => Push::to(Target::uid('b'))->text('3')->id(3),
            'last' => Push::to(Target::uid('a'))->text("4\n"),
        ];
        $results = iterator_to_array(self::$server->client()->batch($pushes, 3));
        self::assertSame(array_keys($pushes), array_keys($results));
        self::assertInstanceOf(PushError::class, $results['invalid']);
        self::assertSame(['bad_request', 'two'], [$results['invalid']->errorCode, $results['invalid']->id]);
        self::assertStringContainsString('1 to 128 bytes', $results['invalid']->message);
        self::assertEquals(new PushResult(0, 0, 0, ['b'], 3), $results['offline']);
        self::assertEquals(new PushResult(1, 1, 0, [], null), $results['last']);
        self::assertSame(['1', "4\n"], [$socket->next(), $socket->next()]);
    }

    public function testPushesAreTakenOnlyWhenNeeded(): void
    {
        $taken = 0;
        $pushes = (static function () use (&$taken): \Generator {
            for ($i = 0; $i < 25; $i++) {
                $taken++;
                yield Push::to(Target::uid('offline'))->text('x')->id($i);
            }
        })();
        $results = self::$server->client()->batch($pushes, 10);
        self::assertSame(0, $taken, 'nothing is sent before the generator is iterated');
        foreach ($results as $index => $result) {
            self::assertSame($index, $result->id);
            // A request of 10 pushes is sent when the client has taken the 11th push.
            self::assertSame(min(25, intdiv($index, 10) * 10 + 11), $taken);
        }
        self::assertSame(24, $index);
    }

    public function testMemoryIsBounded(): void
    {
        $text = str_repeat('x', 4000);
        $pushes = (static function () use ($text): \Generator {
            for ($i = 0; $i < 5000; $i++) {
                yield Push::to(Target::uid('offline'))->text($text);
            }
        })();
        [$before, $count] = [memory_get_usage(), 0];
        foreach (self::$server->client()->batch($pushes) as $result) {
            self::assertSame(['offline'], $result->offline);
            self::assertLessThan(4 << 20, memory_get_usage() - $before, '20 MB of pushes use at most 4 MiB');
            $count++;
        }
        self::assertSame(5000, $count);
    }

    public function testALargePushHasItsOwnRequest(): void
    {
        $pushes = array_map(static fn (int $size): Push => Push::to(Target::uid('offline'))->text(str_repeat('x', $size)), [1, 400_000, 2 << 20, 1]);
        $results = iterator_to_array(self::$server->client()->batch($pushes));
        self::assertSame([0, 0, 'too_large', 0], array_map(static fn ($result) => $result->matched ?? $result->errorCode, $results));
    }

    public function testAnswersLongerThanTheSocketBuffers(): void
    {
        $uids = array_map(static fn (int $i): string => str_pad((string) $i, 100, 'x'), range(1, 9000));
        $results = iterator_to_array(self::$server->client()->batch(array_fill(0, 4, Push::to(Target::uids($uids))->text('x'))));
        foreach ($results as $result) {
            self::assertSame($uids, $result->offline);
        }
    }

    public function testWithoutPushesNothingIsSent(): void
    {
        self::assertSame([], iterator_to_array((new Client('127.0.0.1:1'))->batch([])));
    }

    public function testARefusedRequestThrows(): void
    {
        $this->expectException(ApiException::class);
        iterator_to_array((new Client(self::$server->api, 'wrong-key'))->batch([Push::to(Target::all())->text('x')]));
    }

    public function testResultsBeforeAFailureAreYielded(): void
    {
        $answers = "{\"id\":1,\"matched\":1,\"queued\":1,\"dropped\":0,\"offline\":[]}\n{\"id\":2,\"mat";
        foreach ([new TransportException('the connection ended', $answers), new Response(200, $answers)] as $outcome) {
            $transport = new class ($outcome) implements Transport {
                public function __construct(private readonly TransportException|Response $outcome)
                {
                }

                public function send(string $method, string $path, ?string $body = null, string $type = self::JSON): Response
                {
                    return $this->outcome instanceof Response ? $this->outcome : throw $this->outcome;
                }
            };
            $ids = [];
            try {
                foreach ((new Client($transport))->batch([Push::to(Target::all())->text('x'), Push::to(Target::all())->text('y')]) as $result) {
                    $ids[] = $result->id;
                }
                self::fail('the failure must be thrown');
            } catch (TransportException) {
                self::assertSame([1], $ids);
            }
        }
    }

    public function testARequestOfZeroPushesIsRefused(): void
    {
        $this->expectException(\InvalidArgumentException::class);
        iterator_to_array(self::$server->client()->batch([], 0));
    }
}
