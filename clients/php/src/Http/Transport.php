<?php

declare(strict_types=1);

namespace Fdpush\Http;

use Fdpush\Exception\TransportException;

/** Sends HTTP requests to one server. */
interface Transport
{
    public const JSON = 'application/json';
    public const LINES = 'application/x-ndjson';

    /**
     * Sends one request and returns the response, whatever its status.
     *
     * A request of the type LINES has no time limit in total, because slow receivers slow down a batch. Then the timeout
     * limits the time without progress.
     *
     * @param string      $path the request target, percent-encoded, such as `/api/push`
     * @param string|null $body the body, or null for a request without one
     * @param string      $type the content type of the body
     *
     * @throws TransportException there is no complete answer
     */
    public function send(string $method, string $path, ?string $body = null, string $type = self::JSON): Response;
}
