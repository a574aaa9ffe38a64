<?php

declare(strict_types=1);

namespace Fdpush\Http;

use Fdpush\Exception\TransportException;
use Fdpush\Internal\Address;

/** Sends requests without the extension curl. Each request opens a connection. */
final class StreamTransport implements Transport
{
    private readonly Address $address;

    /**
     * @param string               $address `http://HOST:PORT` or `https://HOST:PORT`
     * @param string               $key     the API key, or '' for a server without keys
     * @param float                $timeout the maximum time in seconds without progress
     * @param array<string, mixed> $tls     options of the context `ssl`, such as `cafile`; needs the extension openssl
     */
    public function __construct(
        string $address = Address::DEFAULT,
        #[\SensitiveParameter] string $key = '',
        private readonly float $timeout = Address::TIMEOUT,
        private readonly array $tls = [],
    ) {
        $this->address = new Address($address, $key);
        if ($this->address->socket !== null) {
            throw new \InvalidArgumentException("$address: unix sockets need the extension curl");
        }
    }

    public function send(string $method, string $path, ?string $body = null, string $type = self::JSON): Response
    {
        $http = [
            'method' => $method,
            'header' => [...$this->address->headers($type), 'Connection: close'],
            'content' => $body ?? '',
            'protocol_version' => 1.1,
            'timeout' => $this->timeout,
            'ignore_errors' => true,
            'follow_location' => 0,
        ];
        error_clear_last();
        $stream = @fopen($this->address->url . $path, 'rb', false, stream_context_create(['http' => $http, 'ssl' => $this->tls]));
        if ($stream === false) {
            throw new TransportException($this->failure('no answer'));
        }
        try {
            $received = @stream_get_contents($stream);
            $data = stream_get_meta_data($stream);
        } finally {
            fclose($stream);
        }
        if ($received === false || $data['timed_out']) {
            throw new TransportException($this->failure("no progress for {$this->timeout} s"), (string) $received);
        }
        $head = $data['wrapper_data'] ?? null;
        $line = is_array($head) && is_string($head[0] ?? null) ? $head[0] : '';
        return new Response((int) (explode(' ', $line)[1] ?? 0), $received);
    }

    private function failure(string $default): string
    {
        return "{$this->address->name}: " . (error_get_last()['message'] ?? $default);
    }
}
