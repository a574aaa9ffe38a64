<?php

declare(strict_types=1);

namespace Fdpush\Internal;

/**
 * The address of the API and the API key.
 *
 * @internal
 */
final class Address
{
    public const DEFAULT = 'http://127.0.0.1:9502';

    /** The default timeout in seconds. The default is longer than the server's `answer_time_max`, 10 s. */
    public const TIMEOUT = 15.0;

    /** The address in error messages. */
    public readonly string $name;
    /** The part of each URL before the path. */
    public readonly string $url;
    /** The path of the unix socket, or null. */
    public readonly ?string $socket;

    public function __construct(string $address, #[\SensitiveParameter] private readonly string $key)
    {
        if (preg_match('/[^\x21-\x7e]/', $key) === 1) {
            throw new \InvalidArgumentException('an API key must contain only visible ASCII characters');
        }
        if (str_starts_with($address, 'unix:')) {
            $this->name = $address;
            $this->socket = substr($address, strlen('unix:'));
            $this->url = 'http://localhost';
            return;
        }
        if (!str_contains($address, '://')) {
            $address = "http://$address";
        }
        if (preg_match('~^https?://[^/?#@\s]+/?$~', $address) !== 1) {
            throw new \InvalidArgumentException('the address of the API must be http://HOST:PORT, https://HOST:PORT or unix:PATH');
        }
        $this->name = $this->url = rtrim($address, '/');
        $this->socket = null;
    }

    /** @return list<string> */
    public function headers(string $type): array
    {
        return ["Content-Type: $type", ...($this->key === '' ? [] : ["Authorization: Bearer {$this->key}"])];
    }
}
