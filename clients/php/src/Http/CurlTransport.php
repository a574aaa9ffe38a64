<?php

declare(strict_types=1);

namespace Fdpush\Http;

use Fdpush\Exception\TransportException;
use Fdpush\Internal\Address;

/** Sends requests with the extension curl. All requests use one connection, which stays open. */
final class CurlTransport implements Transport
{
    private readonly Address $address;
    private ?\CurlHandle $handle = null;
    private int $pid = 0;

    /**
     * @param string            $address `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`
     * @param string            $key     the API key, or '' for a server without keys
     * @param float             $timeout the maximum time of a request in seconds, of which the connect may take at most 3 s
     * @param array<int, mixed> $options curl options, such as CURLOPT_CAINFO, CURLOPT_SSLCERT and CURLOPT_SSLKEY
     */
    public function __construct(
        string $address = Address::DEFAULT,
        #[\SensitiveParameter] string $key = '',
        private readonly float $timeout = Address::TIMEOUT,
        private readonly array $options = [],
    ) {
        $this->address = new Address($address, $key);
    }

    public function send(string $method, string $path, ?string $body = null, string $type = self::JSON): Response
    {
        $handle = $this->handle();
        $received = '';
        curl_reset($handle);
        curl_setopt_array($handle, $this->options + $this->timeouts($type) + [
            CURLOPT_URL => $this->address->url . $path,
            CURLOPT_CUSTOMREQUEST => $method,
            // Without `Expect:`, curl sends `Expect: 100-continue` with a large body, and waits up to a second for the
            // answer.
            CURLOPT_HTTPHEADER => [...$this->address->headers($type), 'Expect:'],
            CURLOPT_WRITEFUNCTION => static function (\CurlHandle $handle, string $piece) use (&$received): int {
                $received .= $piece;
                return strlen($piece);
            },
            // Without this option, curl removes `..` from the path. A group may have the name `..`.
            CURLOPT_PATH_AS_IS => true,
            // An empty proxy disables a proxy from the environment, because a proxy would get the API key.
            CURLOPT_PROXY => '',
        ]);
        if ($this->address->socket !== null) {
            curl_setopt($handle, CURLOPT_UNIX_SOCKET_PATH, $this->address->socket);
        }
        if ($body !== null) {
            curl_setopt($handle, CURLOPT_POSTFIELDS, $body);
        }
        if (curl_exec($handle) === false) {
            throw new TransportException("{$this->address->name}: " . curl_error($handle), $received);
        }
        return new Response(curl_getinfo($handle, CURLINFO_RESPONSE_CODE), $received);
    }

    /** @return array<int, int|bool> */
    private function timeouts(string $type): array
    {
        $timeout = max(1, (int) ceil($this->timeout * 1000));
        $limits = $type === self::LINES
            ? [CURLOPT_LOW_SPEED_LIMIT => 1, CURLOPT_LOW_SPEED_TIME => max(1, (int) ceil($this->timeout))]
            : [CURLOPT_TIMEOUT_MS => $timeout];
        return $limits + [CURLOPT_CONNECTTIMEOUT_MS => min($timeout, 3000), CURLOPT_NOSIGNAL => true];
    }

    /** Returns the handle of this process. A forked process must not share the connection of its parent. */
    private function handle(): \CurlHandle
    {
        $pid = (int) getmypid();
        if ($this->handle === null || $this->pid !== $pid) {
            $handle = curl_init();
            if ($handle === false) {
                throw new TransportException('curl_init failed');
            }
            [$this->handle, $this->pid] = [$handle, $pid];
        }
        return $this->handle;
    }
}
