<?php

declare(strict_types=1);

namespace Fdpush\Exception;

/**
 * A request got no complete answer from the server.
 *
 * The server may or may not have executed the command. A repeated push may be delivered twice.
 */
final class TransportException extends \RuntimeException implements FdpushException
{
    /** @param string $received the part of the answer's body that arrived */
    public function __construct(string $message, public readonly string $received = '', ?\Throwable $previous = null)
    {
        parent::__construct($message, 0, $previous);
    }
}
