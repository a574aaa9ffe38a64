<?php

declare(strict_types=1);

namespace Fdpush\Exception;

/** The exception for a webhook request that the back end must refuse. */
final class WebhookException extends \RuntimeException implements FdpushException
{
    /** @param int $status the HTTP status of the answer: 401 for an invalid signature or time, 400 for a malformed body */
    public function __construct(string $message, public readonly int $status, ?\Throwable $previous = null)
    {
        parent::__construct($message, $status, $previous);
    }
}
