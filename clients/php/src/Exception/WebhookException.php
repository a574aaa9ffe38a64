<?php

declare(strict_types=1);

namespace Fdpush\Exception;

/** A webhook request that must be refused. */
final class WebhookException extends \RuntimeException implements FdpushException
{
    /** @param int $status the HTTP status of the answer: 401 for a signature or a time, 400 for another body */
    public function __construct(string $message, public readonly int $status, ?\Throwable $previous = null)
    {
        parent::__construct($message, $status, $previous);
    }
}
