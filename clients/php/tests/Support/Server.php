<?php

declare(strict_types=1);

namespace Fdpush\Tests\Support;

use Fdpush\Client;

/** A running `fdpush serve` on free ports. Every wait has a deadline. */
final class Server
{
    public const KEY = 'the-key-of-this-test';

    /** The timeout of every wait, in seconds. */
    public const TIMEOUT = 120;

    /** The address for WebSocket clients, `HOST:PORT`. */
    public readonly string $address;
    /** The address of the API: `HOST:PORT`, or `unix:PATH`. */
    public readonly string $api;
    /** @var resource */
    private $process;
    /** @var array<int, resource> */
    private array $pipes = [];

    /**
     * @param list<string>          $flags
     * @param array<string, string> $environment
     */
    private function __construct(string $api, array $flags, array $environment)
    {
        $binary = getenv('FDPUSH_BIN');
        if ($binary === false) {
            throw new \RuntimeException('FDPUSH_BIN must be the path of the binary to test');
        }
        $command = [$binary, 'serve', '--listen', '127.0.0.1:0', '--api', $api, '--page', 'never', '--log', 'info', ...$flags];
        $environment += ['FDPUSH_API_KEY' => self::KEY] + getenv();
        $process = proc_open($command, [1 => ['pipe', 'w'], 2 => ['pipe', 'w']], $this->pipes, null, $environment);
        if ($process === false) {
            throw new \RuntimeException("$binary cannot be started");
        }
        $this->process = $process;
        $this->address = $this->wait($this->pipes[1], '~(\S+)\s*$~');
        $this->api = $this->wait($this->pipes[2], '~the API is on (\S+)~');
    }

    public static function start(string ...$flags): self
    {
        return new self('127.0.0.1:0', $flags, []);
    }

    public static function startAt(string $api, string ...$flags): self
    {
        return new self($api, $flags, []);
    }

    /** @param array<string, string> $environment */
    public static function startWith(array $environment, string ...$flags): self
    {
        return new self('127.0.0.1:0', $flags, $environment);
    }

    public function client(): Client
    {
        return new Client($this->api, self::KEY, self::TIMEOUT);
    }

    public function connect(string $target = '/'): WebSocket
    {
        return WebSocket::open($this->address, $target);
    }

    public function stop(): void
    {
        proc_terminate($this->process, SIGKILL);
        array_map(fclose(...), $this->pipes);
        proc_close($this->process);
    }

    /**
     * Reads lines until one matches, and returns its first group.
     *
     * @param resource $pipe
     */
    private function wait($pipe, string $pattern): string
    {
        $deadline = hrtime(true) + self::TIMEOUT * 1_000_000_000;
        $text = '';
        stream_set_blocking($pipe, false);
        while (hrtime(true) < $deadline && !feof($pipe)) {
            $read = [$pipe];
            $none = null;
            if (stream_select($read, $none, $none, 1) === 0) {
                continue;
            }
            $text .= fread($pipe, 4096);
            foreach (array_slice(explode("\n", $text), 0, -1) as $line) {
                if (preg_match($pattern, $line, $match) === 1) {
                    return $match[1];
                }
            }
        }
        throw new \RuntimeException("the server must print its address: $text");
    }
}
