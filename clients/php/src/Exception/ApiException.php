<?php

declare(strict_types=1);

namespace Fdpush\Exception;

/**
 * An error that the server answered. A refused command has no effect.
 *
 * `getMessage()` is for people. Programs should use `errorCode`.
 */
final class ApiException extends \RuntimeException implements FdpushException
{
    /**
     * @param int             $status    the HTTP status
     * @param string          $errorCode the error's code, such as `bad_request`; empty if the answer is not from fdpush
     * @param string|int|null $id        the `id` of the push, if it had one
     */
    public function __construct(
        public readonly int $status,
        public readonly string $errorCode,
        string $message,
        public readonly string|int|null $id = null,
    ) {
        parent::__construct($message, $status);
    }
}
