<?php

declare(strict_types=1);

namespace Fdpush\Http;

/** The status and the body of an HTTP response. */
final class Response
{
    public function __construct(public readonly int $status, public readonly string $body)
    {
    }
}
