<?php

declare(strict_types=1);

namespace Fdpush\Tests\Support;

/** An HTTP server for webhooks, which answers one request at a time. Every wait has a deadline. */
final class BackEnd
{
    public readonly string $url;
    /** @var resource */
    private $listener;

    public function __construct()
    {
        $listener = stream_socket_server('tcp://127.0.0.1:0');
        if ($listener === false) {
            throw new \RuntimeException('no free port');
        }
        $this->listener = $listener;
        $this->url = 'http://' . stream_socket_get_name($listener, false) . '/';
    }

    /**
     * Reads one request, answers it, and returns its body and its signature.
     *
     * @return array{string, ?string}
     */
    public function answer(int $status, string $json = ''): array
    {
        $stream = stream_socket_accept($this->listener, Server::TIMEOUT);
        if ($stream === false) {
            throw new \RuntimeException('no request arrived before the deadline');
        }
        stream_set_timeout($stream, Server::TIMEOUT);
        $length = 0;
        $signature = null;
        while (!in_array($line = fgets($stream), ["\r\n", false], true)) {
            [$name, $value] = explode(': ', trim($line), 2) + [1 => ''];
            match (strtolower($name)) {
                'content-length' => $length = (int) $value,
                'x-fdpush-signature' => $signature = $value,
                default => null,
            };
        }
        $body = (string) stream_get_contents($stream, $length);
        fwrite($stream, "HTTP/1.1 $status Status\r\nContent-Length: " . strlen($json) . "\r\nConnection: close\r\n\r\n$json");
        fclose($stream);
        return [$body, $signature];
    }

    public function stop(): void
    {
        fclose($this->listener);
    }
}
