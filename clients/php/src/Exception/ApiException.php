<?php

declare(strict_types=1);

namespace Fdpush\Exception;

/**
 * An error in the answer of the server. A refused command has no effect.
 *
 * `getMessage()` returns a text for people. Programs should use `errorCode`.
 */
final class ApiException extends \RuntimeException implements FdpushException
{
    /**
     * @param int             $status    the HTTP status
     * @param string          $errorCode the error's code, such as `bad_request`; empty if the answer is not from fdpush
     * @param string|int|null $id        the `id` of the push, or null if the push has no `id`
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
