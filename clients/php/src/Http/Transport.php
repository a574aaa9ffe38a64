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
     * Sends one request and returns the response, also if its status is an error.
     *
     * A request of the type LINES has no limit for its total time, because slow receivers slow down a batch. For such a
     * request, the timeout limits the time without received bytes.
     *
     * @param string      $path the request target, percent-encoded, such as `/api/push`
     * @param string|null $body the body, or null for a request without a body
     * @param string      $type the content type of the body
     *
     * @throws TransportException the server sends no complete answer
     */
    public function send(string $method, string $path, ?string $body = null, string $type = self::JSON): Response;
}
